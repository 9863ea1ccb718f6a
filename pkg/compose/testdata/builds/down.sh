#!/bin/sh
# Project builds: down.
# Nothing to do.
