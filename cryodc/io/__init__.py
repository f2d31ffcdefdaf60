"""Files: the only place that knows rln* labels, MRC headers and xyz order."""
