"""Seeded mistakes: each is put into a copy of the repository, and some test must fail.

Run with `python tests/mutants.py [part of a name ...]`; prints what each mutant ran into, and exits with the number
of those that no test noticed.
"""

# ruff: noqa: E501
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SAC = "sac_continuous.py"
# name: (file, what is right, what is wrong)
MUTANTS = {
    # the notes' mistakes
    "note 001: entropy + target in the temperature's loss": (SAC, "-(log_alpha * (log_prob.detach() + target_entropy))", "-(log_alpha * (target_entropy - log_prob.detach()))"),
    "note 003, step 5: log_prob - target": (SAC, "(log_prob.detach() + target_entropy)", "(log_prob.detach() - target_entropy)"),
    "note 003: log_prob summed twice": (SAC, "(log_normal - log_slope).sum(-1)", "(log_normal.sum(-1, keepdim=True) - log_slope).sum(-1)"),
    "note 001: log_prob averaged over dimensions": (SAC, "(log_normal - log_slope).sum(-1)", "(log_normal - log_slope).mean(-1)"),
    "note 003: 1e-6 inside the logarithm": (SAC, "2 * (math.log(2) - u - F.softplus(-2 * u))", "torch.log(1 - u.tanh().square() + 1e-6)"),
    "note 003: no terminal mask": (SAC, "gamma * (1 - terminated) * (torch", "gamma * (torch"),
    "note 003: lost prime, a hard copy in each step": (SAC, "torch._foreach_lerp_(list(target), list(source), tau)", "torch._foreach_lerp_(list(target), list(source), 1.0)"),
    "note 003: online critics in the target": (SAC, "for critic in self.critics_target)", "for critic in self.critics)"),
    "note 003: entropy left out of the actor's gradient": (SAC, '"actor_loss": actor_loss(log_prob, q1', '"actor_loss": actor_loss(log_prob.detach(), q1'),
    "note 003: hard clamp of log_std": (SAC, "-1.5 + 3.5 * log_std.tanh()", "log_std.clamp(-5, 2)"),
    "note 003: obs does not advance during the random steps": (SAC, "            obs = next_obs\n", "            obs = next_obs if learning else obs\n"),
    # equations
    "mask leaves the entropy outside": (SAC, "(1 - terminated) * (torch.minimum(next_q1, next_q2) - alpha * next_log_prob)", "((1 - terminated) * torch.minimum(next_q1, next_q2) - alpha * next_log_prob)"),
    "mask inverted": (SAC, "gamma * (1 - terminated)", "gamma * terminated"),
    "maximum of the twins in the target": (SAC, "(torch.minimum(next_q1, next_q2)", "(torch.maximum(next_q1, next_q2)"),
    "one twin in the target": (SAC, "(torch.minimum(next_q1, next_q2)", "(next_q1"),
    "entropy added with the wrong sign in the target": (SAC, "- alpha * next_log_prob)", "+ alpha * next_log_prob)"),
    "maximum of the twins for the actor": (SAC, "alpha * log_prob - torch.minimum(q1, q2)", "alpha * log_prob - torch.maximum(q1, q2)"),
    "actor descends the value": (SAC, "alpha * log_prob - torch.minimum(q1, q2)", "alpha * log_prob + torch.minimum(q1, q2)"),
    "actor descends the entropy": (SAC, "(alpha * log_prob - torch", "(-alpha * log_prob - torch"),
    "one critic is not trained": (SAC, "F.mse_loss(q1, target) + F.mse_loss(q2, target)", "2 * F.mse_loss(q1, target)"),
    "losses are sums": (SAC, "torch.minimum(q1, q2)).mean()", "torch.minimum(q1, q2)).sum()"),
    "temperature's loss reaches the policy": (SAC, "(log_prob.detach() + target_entropy)", "(log_prob + target_entropy)"),
    "density of the wrong normal": (SAC, "- log_std - 0.5 * math.log", "+ log_std - 0.5 * math.log"),
    # wiring
    "gradient through the target": (SAC, "        with torch.no_grad():\n            next_action", "        with contextlib.nullcontext():\n            next_action"),
    "next action from the current observation": (SAC, "self.sample(next_obs)", "self.sample(obs)"),
    "actor's loss sees the stored action": (SAC, "q1, q2 = (critic(obs, new_action)", "q1, q2 = (critic(obs, action)"),
    "actor's loss moves the temperature": (SAC, "alpha = self.log_alpha.detach().exp()", "alpha = self.log_alpha.exp()"),
    "actor's step moves the critics too": (SAC, "self.actor_optimizer = Adam(self.actor.parameters(), args.actor_lr)", "self.actor_optimizer = Adam([*self.actor.parameters(), *self.critics.parameters()], args.actor_lr)"),
    "bias correction of Adam left out": (SAC, "self.lr / scale1 * mean", "self.lr * mean"),
    "targets do not start as copies": (SAC, "copy.deepcopy(self.critics).requires_grad_(False)", "nn.ModuleList([Critic(obs_dim, action_dim), Critic(obs_dim, action_dim)]).requires_grad_(False)"),
    "targets are the critics": (SAC, "copy.deepcopy(self.critics).requires_grad_(False)", "self.critics"),
    "source and target swapped": (SAC, "polyak_update(self.critics.parameters(), self.critics_target.parameters()", "polyak_update(self.critics_target.parameters(), self.critics.parameters()"),
    "target entropy is +action_dim": (SAC, "start = -action_dim if", "start = action_dim if"),
    "moving target overshoots": (SAC, ".clamp(max=1)", ""),
    "fixed temperature is learned": (SAC, "        if self.args.autotune:", "        if True:"),
    "evaluation explores": (SAC, "env.step(agent.act(obs, explore=False))", "env.step(agent.act(obs, explore=True))"),
    "training does not explore": (SAC, "agent.act(obs, explore=True)", "agent.act(obs, explore=False)"),
    "a loss is read back in each update": (SAC, "        self.num_updates += 1\n", "        self.num_updates += 1\n        metrics['q'].item()\n"),
    # buffer and loop
    "time limits stored as ends": (SAC, "buffer.add(obs, action, reward, next_obs, terminated)", "buffer.add(obs, action, reward, next_obs, terminated or truncated)"),
    "ends never stored": (SAC, "buffer.add(obs, action, reward, next_obs, terminated)", "buffer.add(obs, action, reward, next_obs, False)"),
    "obs and next_obs swapped in the buffer": (SAC, "np.concatenate([obs, action, next_obs,", "np.concatenate([next_obs, action, obs,"),
    "wrap-around one slot early": (SAC, "self.rows[self.num_added % len(self.rows)]", "self.rows[self.num_added % (len(self.rows) - 1)]"),
    "samples rows that were never written": (SAC, "% self.num_filled", "% len(self.rows)"),
    "only the first half is sampled": (SAC, "% self.num_filled", "% (self.num_filled // 2 + 1)"),
    "no reset after an end": (SAC, "                obs, _ = env.reset()\n", "                env.reset()\n"),
    "one random step too many": (SAC, "learning = step > args.learning_starts", "learning = step > args.learning_starts + 1"),
    "actions are not rescaled": (SAC, "return gym.wrappers.RescaleAction(gym.wrappers.RecordEpisodeStatistics(env), np.float32(-1), np.float32(1))", "return gym.wrappers.RecordEpisodeStatistics(env)"),
    "gradient of a layer's input from the wrong side": (SAC, "onednn_linear(grad, w.t(), None) if", "onednn_linear(grad, w, None) if"),
    # files
    "moments of Adam are not saved": (SAC, "self.register_buffer(f\"mean{i}\", torch.zeros_like(parameter))", "self.register_buffer(f\"mean{i}\", torch.zeros_like(parameter), persistent=False)"),
    "random numbers start anew at a resume": (SAC, '    torch.set_rng_state(state["torch_rng"])\n', ""),
    "environment starts anew at a resume": (SAC, "        generator.state = generator_state\n", "        pass\n"),
    "checkpoint written over in place": (SAC, 'torch.save(state, path.with_suffix(".tmp"))\n    os.replace(path.with_suffix(".tmp"), path)', "torch.save({}, path)\n    time.sleep(0.2)\n    torch.save(state, path)"),
    "integers in exponent notation are cut": (SAC, " and float(value).is_integer()", ""),
    "what is not finite goes on": (SAC, "        if not value.isfinite().all():", "        if False:"),
    "failing tracker ends the run": (SAC, "            except Exception as error:\n                self.tracking = False", "            except KeyError as error:\n                self.tracking = False"),
}  # fmt: skip


def main() -> int:
    wanted = {n: m for n, m in MUTANTS.items() if not sys.argv[1:] or any(part in n for part in sys.argv[1:])}
    survivors = []
    for name, (file, right, wrong) in wanted.items():
        text = (ROOT / file).read_text()
        assert text.count(right) >= 1, f"{name}: {file} has no {right!r}"
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(
                ROOT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__")
            )
            Path(folder, file).write_text(text.replace(right, wrong))
            command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
            fast_first = [f"tests/test_{part}.py" for part in ("equations", "agent", "loop", "runs")]
            result = subprocess.run([*command, *fast_first], cwd=folder, capture_output=True, text=True)
        failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        caught = result.returncode == 1 and failed
        print(
            f"{'caught  ' if caught else 'SURVIVED'} {name}: {failed[0].split(' - ')[0] if failed else ''}", flush=True
        )
        survivors += [] if caught else [name]
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} mutants caught; survived: {survivors}")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main())
