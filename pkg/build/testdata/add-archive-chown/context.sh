umask 022
mkdir t; echo in > t/file; chmod 600 t/file; ln -s file t/link
tar -C t --owner=3 --group=4 --numeric-owner --mtime=@1 -cf a.tar .
