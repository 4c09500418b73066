"""Classification of images by a network whose depth is time."""
