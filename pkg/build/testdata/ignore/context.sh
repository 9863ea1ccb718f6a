umask 022
cat > .dockerignore <<'E'
# comment
.dockerignore
Dockerfile
**/*.o
src/gen
!src/gen/keep
/build/
tmp*
E
mkdir -p src/gen src/deep build; for f in src/a.c src/a.o src/gen/drop src/gen/keep src/deep/b.o src/deep/b.h build/out tmpfile; do echo $f > $f; done
