"""Side-by-side measurements against DCMTK, on one machine, as ratios."""
