import numpy as np
from PIL import Image

from drivedistill.records import CAMERAS
from drivedistill.world.dataset.sheets import write_sheets
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.pictures.sheet import CAPTION_PX, ROWS, sheet
from drivedistill.world.views import Views


def test_a_sheet_shows_every_camera_in_its_place():
    pictures = {name: np.full((48, 48, 3), 20 * number, np.uint8) for number, name in enumerate(CAMERAS, start=1)}
    views = Views(pictures, {name: np.zeros((48, 48), np.int32) for name in CAMERAS})
    shown = np.array(sheet(views, "night, rain", width=160))
    assert shown.shape == (CAPTION_PX + 2 * 90, 3 * 160, 3)
    assert sorted(name for row in ROWS for name in row) == sorted(CAMERAS)
    for line, row in enumerate(ROWS):
        for column, name in enumerate(row):
            tile = shown[CAPTION_PX + 90 * line : CAPTION_PX + 90 * (line + 1), 160 * column : 160 * (column + 1)]
            assert np.all(tile == pictures[name][0, 0])
    assert shown[:CAPTION_PX].max() > 200


def test_there_is_a_sheet_for_every_kind_and_an_overview(tmp_path):
    written = list(write_sheets(tmp_path, 3, width=64))
    assert [path.stem for path in written] == [*REGULAR, *CORNER, "overview"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    overview = Image.open(written[-1])
    assert overview.size == (6 * 32, -(-len(REGULAR + CORNER) // 6) * 18)
    assert Image.open(written[0]).size == (3 * 64, CAPTION_PX + 2 * 36)
