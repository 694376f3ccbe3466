"""Facts of a key frame, computed another way: points sampled on footprints, differences of logged positions."""

from functools import cache

import numpy as np

from drivedistill.world.catalogue import KINDS, name
from drivedistill.world.questions.observe import SIGN_NAMES
from drivedistill.world.rig import camera, project

GENERAL = {
    "vehicle": "vehicle", "cyclist": "two-wheeler", "person": "person", "animal": "animal", "debris": "object",
    "works": "object",
}  # fmt: skip
EGO = (4.7, 1.9)
CARS = {"sedan", "SUV", "hatchback", "taxi", "van", "pickup", "police car"}
CLASSES = {
    "cars": CARS,
    "trucks": {"truck", "fire truck", "cement mixer"},
    "buses": {"bus"},
    "pedestrians": {"pedestrian", "child", "construction worker", "person with a stroller"},
    "bicycles with riders": {"cyclist"},
    "motorcycles with riders": {"motorcyclist"},
    "animals": {"dog", "deer", "cow", "sheep", "horse"},
    "traffic cones": {"traffic cone"},
    "barriers": {"construction barrier"},
    "vehicles": CARS | {"truck", "bus", "ambulance", "fire truck", "cement mixer", "excavator"},
}


@cache
def grid(length, width):
    """Points on a rectangle, half a metre apart at most: float[n, 2]."""
    x = np.linspace(-length / 2, length / 2, max(3, int(length / 0.4) + 1))
    y = np.linspace(-width / 2, width / 2, max(3, int(width / 0.4) + 1))
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def placed(points, pose):
    """Points of a footprint in the world, as complex numbers."""
    return complex(pose[0], pose[1]) + (points[:, 0] + 1j * points[:, 1]) * np.exp(1j * pose[2])


def inside(points, pose, size):
    """Which complex points lie in a rectangle?"""
    local = (points - complex(pose[0], pose[1])) * np.exp(-1j * pose[2])
    return (np.abs(local.real) <= size[0] / 2) & (np.abs(local.imag) <= size[1] / 2)


def overlap(pose, size, other_pose, other_size):
    """Does a sampled point of one lie in the other?"""
    if np.hypot(*(pose[:2] - other_pose[:2])) > (sum(size[:2]) + sum(other_size[:2])) / 2:
        return False
    return bool(
        inside(placed(grid(*size[:2]), pose), other_pose, other_size).any()
        or inside(placed(grid(*other_size[:2]), other_pose), pose, size).any()
    )


class Second:
    """Another look at one key frame."""

    def __init__(self, drive, step, views):
        self.drive, self.step, self.views = drive, step, views
        self.actors = [actor.id for actor in drive.scene.actors]
        self.ids = self.actors + [item.id for item in (*drive.scene.heads, *drive.scene.signs)]
        width, height = views.size
        self.scale = 224 * 224 / (width * height)
        for method in ("visible", "tag", "distance", "rolled", "hits", "on_strip", "first_in_lane"):
            setattr(self, method, cache(getattr(self, method)))
        self._counts = {
            camera_name: dict(zip(*np.unique(mask, return_counts=True), strict=True))
            for camera_name, mask in views.instances.items()
        }

    # What is seen

    def kind(self, actor):
        return self.drive.scene.actors[actor - 1].kind

    def unpainted(self, actor):
        return not KINDS[self.kind(actor)].painted

    def noun(self, instance):
        if instance > 2000:
            return SIGN_NAMES[next(sign.kind for sign in self.drive.scene.signs if sign.id == instance)]
        if instance > 1000:
            return f"{self.drive.signals[self.step]} light"
        return name(self.kind(instance), self.drive.scene.actors[instance - 1].colour)

    def nouns(self, instance):
        """Everything that it may be called: what is dark, faint or small is told with less detail."""
        if instance > 1000:
            return {self.noun(instance)}
        kind, colour = self.kind(instance), self.drive.scene.actors[instance - 1].colour
        small = {"car": CARS - {"van", "pickup"}, "pedestrian": {"child", "construction worker"}}
        plain = {kind} | {noun for noun, kinds in small.items() if kind in kinds}
        painted = {f"{colour} {noun}" for noun in plain} if KINDS[kind].painted else set()
        return plain | painted | {GENERAL[KINDS[kind].family]}

    def count(self, instance, camera_name=None):
        cameras = [camera_name] if camera_name else list(self._counts)
        return max(int(self._counts[one].get(instance, 0)) for one in cameras)

    def scaled(self, instance, camera_name):
        return self.count(instance, camera_name) * self.scale

    def most(self, instance):
        return self.count(instance) * self.scale

    def visible(self, instance):
        """Large enough, and of another colour than what is around."""
        if not self.count(instance):
            return False
        camera_name = max(self._counts, key=lambda one: self._counts[one].get(instance, 0))
        mask = self.views.instances[camera_name] == instance
        rows = np.flatnonzero(mask.any(1))
        if instance > 1000:
            if rows[-1] - rows[0] + 1 < (8 if instance > 2000 else 6):
                return False
        elif self.count(instance) < 6 or self.most(instance) < 24:
            return False
        picture = self.views.pictures[camera_name].astype(float)
        columns = np.flatnonzero(mask.any(0))
        frame = np.zeros_like(mask)
        frame[max(0, rows[0] - 3) : rows[-1] + 4, max(0, columns[0] - 3) : columns[-1] + 4] = True
        own, ring = picture[mask], picture[frame & ~mask]
        if not len(ring):
            return True
        return np.abs(own.mean(0) - ring.mean(0)).max() + own.std(0).max() / 2 > 8.99

    def tag(self, instance):
        """Camera and middle of the mask, as written."""
        if not self.count(instance):
            return None
        camera_name = max(self._counts, key=lambda one: self._counts[one].get(instance, 0))
        rows, columns = np.where(self.views.instances[camera_name] == instance)
        x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        return camera_name, f"{x:.1f}", f"{y:.1f}"

    def _hull(self, actor, camera_name):
        """Pixels inside the outline of the actor's box: bool[h, w]; None if a part of it is behind the camera."""
        width, height = self.views.size
        view = camera(camera_name, self.drive.poses[0, self.step], width, height)
        length, wide, high = KINDS[self.kind(actor)].size
        ground = placed(
            np.array([(length, wide), (length, -wide), (-length, -wide), (-length, wide)]) / 2,
            self.drive.poses[actor, self.step],
        )
        corners = np.array([(point.real, point.imag, z) for point in ground for z in (0, high)])
        pixels, depths = project(view, corners)
        if depths.min() < 0.2:
            return None
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        within = np.ones((height, width), bool)
        for angle in np.linspace(0, 2 * np.pi, 180, endpoint=False):
            across = pixels @ (np.cos(angle), np.sin(angle))
            within &= columns * np.cos(angle) + rows * np.sin(angle) <= across.max()
        return within

    def in_front_of(self, actor, lenient=True):
        """Others who show within the outline of the actor's box and are (or may be) closer: id -> share."""
        camera_name = self.tag(actor)[0]
        hull = self._hull(actor, camera_name)
        if hull is None or not hull.any():
            return None if hull is None else {}
        mask = self.views.instances[camera_name]
        shares = {other: float((mask[hull] == other).mean()) for other in self.actors if other != actor}
        return {
            other: share
            for other, share in shares.items()
            if share
            and (self.distance(other) if lenient else self.distance(other, farthest=True) + 1)
            < self.distance(actor) + lenient * 0.5 * max(KINDS[self.kind(other)].size)
        }

    def hidden_share(self, actor, lenient):
        shares = self.in_front_of(actor, lenient)
        return None if shares is None else sum(shares.values())

    # Where things are and how they move

    def pose(self, instance, step=None):
        step = self.step if step is None else step
        for item in (*self.drive.scene.heads, *self.drive.scene.signs):
            if item.id == instance:
                return np.array([item.x, item.y, item.facing])
        return self.drive.poses[instance, min(step, self.drive.poses.shape[1] - 1)]

    def relative(self, instance, step=None):
        """Metres ahead of and to the left of the ego vehicle."""
        ego, other = self.pose(0, step), self.pose(instance, step)
        turned = (complex(*other[:2]) - complex(*ego[:2])) * np.exp(-1j * ego[2])
        return turned.real, turned.imag

    def off(self, instance, bearing):
        """Degrees between its direction and a bearing."""
        direction = np.degrees(np.angle(complex(*self.relative(instance)) * np.exp(-1j * np.radians(bearing))))
        return abs(float(direction))

    def distance(self, instance, farthest=False):
        ego = complex(*self.pose(0)[:2])
        if instance > 1000:
            return abs(complex(*self.pose(instance)[:2]) - ego)
        away = np.abs(placed(grid(*KINDS[self.kind(instance)].size[:2]), self.pose(instance)) - ego)
        return float(away.max() if farthest else away.min())

    def path(self, actor, seconds):
        return self.drive.poses[actor, self.step : self.step + round(seconds * 10) + 1, :2]

    def velocity(self, actor, seconds=0.0):
        step = min(self.step + round(seconds * 10), self.drive.poses.shape[1] - 1)
        first, last = (step, step + 1) if seconds == 0 else (step - 1, step)
        return (self.drive.poses[actor, last, :2] - self.drive.poses[actor, first, :2]) / 0.1

    def speed(self, actor, seconds=0.0):
        return float(np.linalg.norm(self.velocity(actor, seconds)))

    def gain(self, actor):
        return self.speed(actor, 0.2) - self.speed(actor, -0.2 if self.step > 1 else 0.0)

    def course(self, actor):
        """Degrees between its velocity and the ego's heading; of its heading if it stands."""
        velocity = self.velocity(actor)
        if np.linalg.norm(velocity) < 0.3:
            velocity = np.array([np.cos(self.pose(actor)[2]), np.sin(self.pose(actor)[2])])
        return float(np.degrees(np.angle(complex(*velocity) * np.exp(-1j * self.pose(0)[2]))))

    def along(self, actor):
        """Metres along the road from the ego vehicle to it."""
        track = self.drive.scene.road.track
        return float(track.project(*self.pose(actor)[:2])[0] - track.project(*self.pose(0)[:2])[0])

    def shift(self, seconds):
        """How far the ego vehicle moves to the left: on its road, or seen from where it is if it turns."""
        path = self.path(0, seconds)
        turned = complex(*(path[-1] - path[0])) * np.exp(-1j * self.pose(0)[2])
        track = self.drive.scene.road.track
        if not np.any(self.drive.turning):
            d = track.project(*path[[0, -1]].T)[1]
            if abs(d[1] - d[0]) > 0.6:
                return float(d[1] - d[0])
        return turned.imag

    def at_junction(self):
        """Is it anywhere within the next three seconds on the crossing, where the road's own heading is left?"""
        return any(self.drive.turning[step] for step in range(self.step, min(self.step + 31, len(self.drive.turning))))

    def decided(self):
        """Whom the ego vehicle reacts to in the next three seconds, or did in the last one."""
        return {decision.actor for decision in self.drive.decisions[max(0, self.step - 10) : self.step + 31]}

    def agrees(self, question, truth):
        return None if bool(truth) == (question.answer == "Yes.") else f"it is {bool(truth)}"

    # The road and what might happen

    def lane_middle(self):
        return self.drive.scene.road.lane(int(np.floor(-self.drive.offsets[self.step] / 3.5)))

    def on_line(self, actor):
        """Does a point of the line to the actor lie in somebody who can be seen?"""
        start, end = complex(*self.pose(0)[:2]), complex(*self.pose(actor)[:2])
        points = start + (end - start) * np.linspace(0, 1, 400)
        others = [other for other in self.actors if other != actor and self.visible(other)]
        return any(inside(points, self.pose(other), KINDS[self.kind(other)].size).any() for other in others)

    def first_in_lane(self):
        """The first actor that a walk along the lane meets within 60 m of the bumper."""
        track, middle = self.drive.scene.road.track, self.lane_middle()
        start = float(track.project(*self.pose(0)[:2])[0])
        far, off = np.meshgrid(np.arange(2.35, 62.35, 0.2), np.arange(-1.2, 1.3, 0.2), indexing="ij")
        x, y, _ = track.world(start + far, middle + off)
        met = {}
        for actor in self.actors:
            points = inside(x + 1j * y, self.pose(actor), KINDS[self.kind(actor)].size)
            if points.any():
                met[actor] = far[points].min()
        return min(met, key=met.get) if met else None

    def turns(self):
        return bool(np.any(self.drive.turning[: self.step + 36]))

    def rolled(self, acceleration, lanes):
        """The ego's poses if it drives on like this, every 0.1 s for 3.5 s, in small steps."""
        track, speed, far = self.drive.scene.road.track, float(self.drive.speeds[0, self.step]), 0.0
        start = track.project(*self.pose(0)[:2])
        poses = []
        steps = np.hypot(*np.diff(self.drive.poses[0, self.step :, :2], axis=0).T)
        for tick in range(351):
            if tick % 10 == 0:
                if self.turns():
                    poses.append(self._along_log(far, steps))
                else:
                    d = float(start[1]) + lanes * 3.5 * min(1.0, tick / 250)
                    lean = lanes * np.arctan(1.4 / max(speed, 3.0)) if tick < 250 else 0.0
                    poses.append(np.array([float(value) for value in track.world(float(start[0]) + far, d, lean)]))
            middle = max(0.0, speed + acceleration * 0.005)
            far, speed = far + middle * 0.01, max(0.0, speed + acceleration * 0.01)
        return poses

    def _along_log(self, far, steps):
        for index, length in enumerate(steps):
            if far <= length and length > 0:
                part = far / length
                here, there = self.drive.poses[0, self.step + index : self.step + index + 2]
                return here * (1 - part) + there * part
            far -= length
        last = self.drive.poses[0, -1].copy()
        last[:2] += far * np.array([np.cos(last[2]), np.sin(last[2])])
        return last

    def follows(self, actor):
        x, _ = self.relative(actor)
        heading = np.cos(self.pose(actor)[2] - self.pose(0)[2])
        return x < -2.35 and heading > np.sqrt(0.5)

    def hits(self, acceleration, lanes, actor, margin):
        """Would the ego vehicle, `margin` larger on each side, touch it within 3.5 s?"""
        if not lanes and self.follows(actor):
            return False
        size = (EGO[0] + 2 * margin, EGO[1] + 2 * margin)
        return any(
            overlap(pose, size, self.pose(actor, self.step + index), KINDS[self.kind(actor)].size)
            for index, pose in enumerate(self.rolled(acceleration, lanes))
        )

    def on_strip(self, actor):
        """Is it, in the next 3.5 s, anywhere on the strip that the accelerating ego vehicle covers in this time?"""
        if self.follows(actor) or actor > 1000:
            return False
        size = KINDS[self.kind(actor)].size
        strip = self.rolled(2.0, 0)
        return any(
            overlap(pose, EGO, self.pose(actor, self.step + index), size) for pose in strip for index in range(0, 36, 3)
        )

    def possible(self):
        """Moves that exist here, in words."""
        words = ["keep going at the same speed", "accelerate and go straight", "brake gently", "brake suddenly"]
        road = self.drive.scene.road
        lane = int(np.floor(-self.drive.offsets[self.step] / 3.5))
        if not self.turns() and self.drive.speeds[0, self.step] >= 3.0:
            words += ["change to the left lane"] if lane > 0 or road.opposite else []
            words += ["change to the right lane"] if lane < road.lanes - 1 else []
        return words

    def unlawful(self, acceleration, lanes):
        """It leaves the lanes of its direction, or passes the stop line while the light is red, or a stop sign."""
        road = self.drive.scene.road
        lane = int(np.floor(-self.drive.offsets[self.step] / 3.5)) - lanes
        if lanes and not 0 <= lane < road.lanes:
            return True
        if (
            road.junction is None
            or road.junction.control == "priority road"
            or np.any(self.drive.turning[: self.step + 1])
        ):
            return False
        front = [float(road.track.project(*pose[:2])[0]) + 2.35 for pose in self.rolled(acceleration, lanes)]
        passes = front[0] < road.stop_line + 1.0 and front[-1] > road.stop_line + 1.0
        red = self.drive.signals[self.step] == "red" or road.junction.control == "stop sign"
        return passes and red

    def order_at_crossing(self, actor):
        """Who is first where the logged ways of the two cross? None: they do not."""
        mine, theirs = self.drive.poses[0, self.step :, :2], self.drive.poses[actor, self.step :, :2]
        gaps = np.hypot(*(mine[:, None] - theirs[None]).transpose(2, 0, 1))
        if gaps.min() > 2.0 or abs(np.sin(self.pose(actor)[2] - self.pose(0)[2])) < 0.5:
            return None
        first, second = np.unravel_index(np.argmin(gaps), gaps.shape)
        return "other first" if second < first else "ego first"
