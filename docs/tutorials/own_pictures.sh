set -euo pipefail
noise='{"num_train_timesteps": 100, "beta_start": 0.001, "beta_end": 0.2}' # of the DDPM; robust training would need it

# 1. What is in the folder: classes, sizes, files that cannot be read.
nrcg data describe my_pictures --settings '{"size": 32}' --sheet pictures.png

# 2. An image set: every picture at 32×32, a fifth of them for validation.
nrcg data make folder --settings '{"source": "my_pictures", "size": 32}' --out mine

# 3. A classifier of these images, trained without noise.
nrcg train classifier --data mine --scheduler "$noise" --out mine_classifier --checkpoint mine_classifier.pt --device cpu \
  --settings '{"architecture": "mobilenet_v3_small", "max_epochs": 15, "min_epochs": 15, "batch_size": 32,
               "learning_rate": 0.003, "warmup_steps": 20}'

# 4. Guided samples towards one of the classes. A DDPM of your own pictures would stand in place of the shipped one.
nrcg sample --ddpm resources/sportballs32 --classifier mine_classifier --target soccer --scale 4 \
  --guidance '{"on": "x0", "objective": "logit", "stabilizer": {"ema": {"beta": 0.99, "steps": 400}}}' \
  --num-inference-steps 100 --start 0 --stop 8 --device cpu --out soccer.npy
nrcg draw grid --arguments '{"shards": ["soccer.npy"], "n": 8}' --out soccer.png
