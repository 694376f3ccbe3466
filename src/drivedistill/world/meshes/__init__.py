"""Low-poly meshes, made of code: no asset is stored anywhere."""
