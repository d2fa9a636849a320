"""Features of a folder of images in one file, written part by part."""
