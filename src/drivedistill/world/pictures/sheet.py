"""A contact sheet: the six pictures of a key frame with a caption."""

from __future__ import annotations

from PIL import Image, ImageDraw

from drivedistill.world.rig import ASPECT
from drivedistill.world.views import Views

ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))
CAPTION_PX = 16


def sheet(views: Views, caption: str, *, width: int = 300) -> Image.Image:
    """The pictures as one sees them when looking around, stretched to the sensor's 16:9, each `width` pixels wide."""
    height = round(width * ASPECT)
    whole = Image.new("RGB", (3 * width, CAPTION_PX + 2 * height), (20, 20, 20))
    for line, cameras in enumerate(ROWS):
        for column, camera in enumerate(cameras):
            picture = Image.fromarray(views.pictures[camera]).resize((width, height), Image.Resampling.BICUBIC)
            whole.paste(picture, (column * width, CAPTION_PX + line * height))
    ImageDraw.Draw(whole).text((4, 2), caption, fill=(255, 255, 255))
    return whole
