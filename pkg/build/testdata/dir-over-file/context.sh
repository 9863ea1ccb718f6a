mkdir -p d e/f; echo 1 > d/f; echo 1 > e/f/g
