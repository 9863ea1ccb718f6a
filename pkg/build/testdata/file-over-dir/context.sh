mkdir -p d/f e; echo 1 > e/f
