"""From a drive to six pictures and six instance masks: triangles, rasteriser, shading, weather and light."""
