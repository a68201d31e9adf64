"""Train a small classifier on clean images, then guide the shipped DDPM with it."""

import torch
from torch import nn

import nrcg
from nrcg.datasets.kinds import make_images

# 1. Images to learn from: SportBalls as in the demo, fewer of them.
balls = {"n": 3000, "size": 32, "ball_pixels": 16, "positions": 16, "ball": ["baseball", "basketball", "soccer"]}
data = make_images("sportballs", "balls", balls)
images = torch.from_numpy(data.images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1  # N×3×H×W in [−1, 1]
labels = torch.from_numpy(data.labels.copy())


# 2. Your own network: any module from images to logits.
def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.SiLU())


torch.manual_seed(0)
network = nn.Sequential(
    block(3, 32), block(32, 64), block(64, 64), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 3)
)

# 3. Ordinary training on clean images: no noise anywhere.
optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
for _epoch in range(4):
    for batch in torch.randperm(2400).split(64):
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
network.eval()
with torch.no_grad():
    accuracy = (network(images[2400:]).argmax(1) == labels[2400:]).float().mean()
print(f"Accuracy on held-out images: {accuracy:.0%}")

# 4. Guide the DDPM through x̂₀. `adapt` checks the network and takes its input size and normalisation, if it has any.
classifier = nrcg.adapt(network)
pipe = nrcg.GuidedDDPMPipeline.from_pretrained("resources/sportballs32")
pipe.set_progress_bar_config(disable=True)
judge = nrcg.load_classifier("resources/sportballs32/judge")  # an independent network, which never guides
guidance = nrcg.ClassifierGuidance(
    classifier, target=0, scale=4.0, objective="logit", stabilizer=nrcg.EMA(0.99, steps=400)
)

for name, how in {"unguided": None, "guided": guidance}.items():
    generators = [torch.Generator().manual_seed(i) for i in range(12)]  # the same seeds with and without guidance
    samples = pipe(12, generators, num_inference_steps=100, guidance=how, output_type="pt").images * 2 - 1
    with torch.no_grad():
        own, independent = ((net(samples).argmax(1) == 0).sum() for net in (classifier, judge))
    print(f"{name}: {own} of 12 are baseballs to your classifier, {independent} to the judge")
    pipe.numpy_to_pil(torch.cat(list(samples / 2 + 0.5), dim=2)[None].permute(0, 2, 3, 1).numpy())[0].save(
        f"{name}.png"
    )
