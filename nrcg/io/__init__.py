"""Files: arrays, images, shards of samples, tables, downloads."""
