#!/bin/sh
# Project web: down.
# Nothing to do.
