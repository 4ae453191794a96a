"""Fitting scaling laws to runs: start, polish, bootstrap, choice by hold-out, and what is wrong with a fit."""
