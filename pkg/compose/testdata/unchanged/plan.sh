#!/bin/sh
# Project unchanged: up.
# Nothing to do.
