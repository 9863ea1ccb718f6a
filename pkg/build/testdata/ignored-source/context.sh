echo secret > .dockerignore; echo 1 > secret; echo 1 > ok
