umask 022
echo a > a; mkdir d; echo f > d/f
