umask 022
mkdir -p tree/usr/lib; ln -s usr/lib tree/lib; echo f > f
