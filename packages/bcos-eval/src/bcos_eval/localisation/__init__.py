"""Where explanations point: grid pointing game, boxes, DiFull."""
