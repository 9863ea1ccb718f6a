umask 022
echo 'app:x:10:20::/:/bin/sh' > passwd; mkdir tree; ln -s /etc/dir tree/link; mkdir tree/dir
