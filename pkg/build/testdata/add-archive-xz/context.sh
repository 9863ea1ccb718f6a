umask 022
mkdir t; echo in > t/file; chmod 600 t/file
tar -C t --owner=3 --group=4 --numeric-owner --mtime=@1 -cf a.tar file
tar -C t --owner=3 --group=4 --numeric-owner --mtime=@1 --transform s/file/zst/ -cf b.tar file
xz a.tar; zstd -q --rm b.tar
