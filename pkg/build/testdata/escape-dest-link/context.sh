umask 022
mkdir -p tree/inside tree/root; ln -s /inside tree/abs; ln -s ../../../../root tree/up; echo f > f
