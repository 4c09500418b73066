"""B-cos regression and neural ODEs. Nothing is here yet."""
