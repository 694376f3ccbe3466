"""How a surface is shaded, and how its triangles are drawn: the words that meshes and rasteriser share."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Material(IntEnum):
    """How a surface is shaded."""

    MATT = 0
    ASPHALT = 1
    PAINT = 2
    GRASS = 3
    PAVING = 4
    FACADE = 5
    GLASS = 6
    LAMP = 7
    """shines by itself"""
    TEXTURE = 8
    """colour from the atlas"""
    CAR = 9
    CONE = 10
    WOOD = 11
    BARRIER = 12
    DIRT = 13
    BARK = 14


class Draw(IntFlag):
    """How a triangle is drawn."""

    PLAIN = 0
    GROUND = 1
    """painted over what lies below, in order, without a depth test"""
    CUT_OUT = 2
    """transparent where the atlas is"""
    TWO_SIDED = 4
    NO_SHADOW = 8
    """casts none"""
