"""How each package's training becomes a unit of a study."""
