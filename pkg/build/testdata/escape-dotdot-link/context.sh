mkdir dir; ln -s ../../../../../../../.. dir/out
