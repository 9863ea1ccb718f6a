echo w > .wh.file; tar -cf a.tar .wh.file
