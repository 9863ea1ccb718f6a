umask 022
mkdir t; echo in > t/file; chmod 755 t; chmod 600 t/file; ln -s file t/link
tar -C t --sort=name --owner=3 --group=4 --numeric-owner --mtime=@1 -cf a.tar .
gzip -nk a.tar; tar -C t --mtime=@1 --owner=3 --group=4 --numeric-owner -cjf b.tar.bz2 link
printf hello | gzip -n > plain.gz; echo not a tar > not.tar; rm -r t; chmod 644 *; 
