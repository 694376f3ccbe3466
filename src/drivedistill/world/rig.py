"""Six cameras in nuScenes' order and geometry, and where a point of the world appears in their pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drivedistill.records import CAMERAS
from drivedistill.world.track import Floats

ASPECT = 9 / 16
"""Height over width of the sensor; a picture of another shape is squeezed, as EM-VLM4AD squeezes its inputs."""


class Mount(NamedTuple):
    """Where a camera sits on the ego vehicle."""

    x: float
    y: float
    z: float
    yaw: float
    """degrees to the left of straight ahead"""
    field_of_view: float
    """horizontal, degrees"""


RIG = {
    "CAM_FRONT": Mount(1.5, 0.0, 1.55, 0.0, 70.0),
    "CAM_FRONT_LEFT": Mount(1.3, 0.5, 1.55, 55.0, 70.0),
    "CAM_FRONT_RIGHT": Mount(1.3, -0.5, 1.55, -55.0, 70.0),
    "CAM_BACK": Mount(-2.0, 0.0, 1.55, 180.0, 110.0),
    "CAM_BACK_LEFT": Mount(0.9, 0.5, 1.6, 110.0, 70.0),
    "CAM_BACK_RIGHT": Mount(0.9, -0.5, 1.6, -110.0, 70.0),
}
PITCH = {camera: np.radians(4.0 if camera == "CAM_BACK" else 3.0) for camera in CAMERAS}
"""All cameras look slightly down."""
LEFT_TO_RIGHT = (
    "CAM_BACK_LEFT",
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_RIGHT",
    "CAM_BACK",
)
"""The order in which objects are numbered: around the car from the left to the back."""


class Camera(NamedTuple):
    """A camera in the world."""

    axes: Floats
    """float[3, 3]: rows are image right, image down and the viewing direction"""
    position: Floats
    """float[3]"""
    fx: float
    fy: float
    """focal lengths in pixels"""
    width: int
    height: int


def camera(name: str, ego: Floats, width: int, height: int) -> Camera:
    """The camera `name` on an ego vehicle at the pose `ego` = (x, y, yaw), for a picture of width x height pixels."""
    mount = RIG[name]
    cos, sin = np.cos(ego[2]), np.sin(ego[2])
    position = np.array([ego[0] + cos * mount.x - sin * mount.y, ego[1] + sin * mount.x + cos * mount.y, mount.z])
    yaw, pitch = ego[2] + np.radians(mount.yaw), PITCH[name]
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    axes = np.array([right, np.cross(forward, right), forward])
    half = np.tan(np.radians(mount.field_of_view) / 2)
    return Camera(axes, position, width / 2 / half, height / 2 / (half * ASPECT), width, height)


def project(view: Camera, points: Floats) -> tuple[Floats, Floats]:
    """Pixels float[n, 2] and depths float[n] of world points float[n, 3]; pixels are valid where the depth is above 0."""
    right, down, depth = view.axes @ (points - view.position).T
    safe = np.where(depth > 1e-6, depth, np.nan)
    return np.stack([right / safe * view.fx + view.width / 2, down / safe * view.fy + view.height / 2], axis=1), depth
