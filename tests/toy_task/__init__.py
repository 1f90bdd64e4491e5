"""A dense task in one folder: the darkness of each pixel, 0 to 255, from the image."""
