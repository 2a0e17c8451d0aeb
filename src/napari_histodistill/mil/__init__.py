"""Teachers trained from image-level labels: data sets, bag losses, training, evaluation."""
