umask 022
for f in a.txt b.txt c.md f.go; do echo $f > $f; done; mkdir d1 d2; echo 1 > d1/a; echo 2 > d2/b; echo 3 > d2/c
