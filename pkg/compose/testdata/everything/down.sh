#!/bin/sh
# Project everything: down.
# Nothing to do.
