umask 022
echo 'app:x:10:20::/:/bin/sh' > passwd; echo 'staff:x:30:' > group; echo f > f; mkdir d; echo g > d/g; chown 99:99 f d
