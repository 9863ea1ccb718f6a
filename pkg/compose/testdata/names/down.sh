#!/bin/sh
# Project names: down.
# Nothing to do.
