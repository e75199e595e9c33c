"""Models, from backbone to detector."""
