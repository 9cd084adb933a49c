"""Fitting of engine constants and of what measured runs say of their neighbours."""
