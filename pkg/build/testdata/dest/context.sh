umask 022
echo f > f; mkdir -p d/sub; echo x > d/x; echo z > d/sub/z; chmod 700 d/sub; chmod 640 d/x; ln -s x d/link; ln d/x d/hard
