umask 022
mkdir -p tree/usr/lib d/lib; ln -s usr/lib tree/lib; echo f > f; echo g > d/lib/g; ln -s f link-to-f; ln -s d link-to-d
