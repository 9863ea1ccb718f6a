umask 022
mkdir -p a/b/c a/skip x; echo f > a/b/c/f; echo y > x/y; echo m > a/r.md; echo s > a/skip/s; echo k > a/k
