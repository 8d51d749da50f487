"""Rendered car photos in the seed's shape: parametric cars, a road, a camera, and the plan of what is shot."""
