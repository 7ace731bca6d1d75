"""Seeded mistakes: each is put into a copy of the repository, and some test must fail.

    python tests/mutants.py                            # all of them: hours
    python tests/mutants.py td3 "note 003"             # of a script, or with a name that has this in it
    python tests/mutants.py --sample 30                # thirty drawn at random, from those that are chosen

Prints which test noticed each mutant, and exits with the number of those that none did.
"""

# ruff: noqa: E501
import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent

# script: test file that should notice, and is asked first: name: what is right, what is wrong
MUTANTS = {
    "sac_continuous": {
        "logs": {
            'steps per second are those since the start': ('            self.log_step, self.log_time = self.step, time.perf_counter()\n', ''),
            'progress begins at 0 after a resume': ('tqdm(total=args.total_timesteps, initial=self.step, **options)', 'tqdm(total=args.total_timesteps, **options)'),
        },
        "equations": {
            "note 001: entropy + target in the temperature's loss": ('-(log_alpha * (log_prob.detach() + target_entropy))', '-(log_alpha * (target_entropy - log_prob.detach()))'),
            'note 003, step 5: log_prob - target': ('(log_prob.detach() + target_entropy)', '(log_prob.detach() - target_entropy)'),
            'note 003: log_prob summed twice': ('(log_normal - log_det_jacobian).sum(-1)', '(log_normal.sum(-1, keepdim=True) - log_det_jacobian).sum(-1)'),
            'note 001: log_prob averaged over dimensions': ('(log_normal - log_det_jacobian).sum(-1)', '(log_normal - log_det_jacobian).mean(-1)'),
            'note 003: 1e-6 inside the logarithm': ('2 * (math.log(2) - u - F.softplus(-2 * u))', 'torch.log(1 - u.tanh().square() + 1e-6)'),
            'note 003: no terminal mask': ('gamma * (1 - terminated) * (torch', 'gamma * (torch'),
            'note 003: lost prime, a hard copy in each step': ('q_target.lerp_(q, tau)', 'q_target.lerp_(q, 1.0)'),
            'mask leaves the entropy outside': ('(1 - terminated) * (torch.minimum(next_q1, next_q2) - alpha * next_log_prob)', '((1 - terminated) * torch.minimum(next_q1, next_q2) - alpha * next_log_prob)'),
            'mask inverted': ('gamma * (1 - terminated)', 'gamma * terminated'),
            'maximum of the twins in the target': ('(torch.minimum(next_q1, next_q2)', '(torch.maximum(next_q1, next_q2)'),
            'one twin in the target': ('(torch.minimum(next_q1, next_q2)', '(next_q1'),
            'entropy added with the wrong sign in the target': ('- alpha * next_log_prob)', '+ alpha * next_log_prob)'),
            'maximum of the twins for the actor': ('alpha * log_prob - torch.minimum(q1, q2)', 'alpha * log_prob - torch.maximum(q1, q2)'),
            'actor descends the value': ('alpha * log_prob - torch.minimum(q1, q2)', 'alpha * log_prob + torch.minimum(q1, q2)'),
            'actor descends the entropy': ('(alpha * log_prob - torch', '(-alpha * log_prob - torch'),
            'one critic is not trained': ('F.mse_loss(q1, target) + F.mse_loss(q2, target)', '2 * F.mse_loss(q1, target)'),
            'losses are sums': ('torch.minimum(q1, q2)).mean()', 'torch.minimum(q1, q2)).sum()'),
            "temperature's loss reaches the policy": ('(log_prob.detach() + target_entropy)', '(log_prob + target_entropy)'),
            'density of the wrong normal': ('- log_std - 0.5 * math.log', '+ log_std - 0.5 * math.log'),
        },
        "continuous": {
            "the logged entropy is that of the next observations": ('"entropy": -log_prob.mean()}', '"entropy": -next_log_prob.mean()}'),
            'note 003: online critics in the target': ('for critic in self.critics_target)', 'for critic in self.critics)'),
            "note 003: entropy left out of the actor's gradient": ('"actor_loss": actor_loss(log_prob, q1', '"actor_loss": actor_loss(log_prob.detach(), q1'),
            'note 003: hard clamp of log_std': ('return mean, bound_log_std(log_std)', 'return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)'),
            'gradient through the target': ('        with torch.no_grad():\n            next_action', '        with contextlib.nullcontext():\n            next_action'),
            'next action from the current observation': ('self.sample(next_obs)', 'self.sample(obs)'),
            "actor's loss sees the stored action": ('q1, q2 = (critic(obs, new_action)', 'q1, q2 = (critic(obs, action)'),
            "actor's loss moves the temperature": ('alpha = self.log_alpha.detach().exp()', 'alpha = self.log_alpha.exp()'),
            "actor's step moves the critics too": ('part = getattr(self.owner[0], self.name)', 'part = self.owner[0] if self.name == "actor" else getattr(self.owner[0], self.name)'),
            'Adam forgets how many steps it made': ('self.num_steps.add_(1)', 'self.num_steps.fill_(1)'),
            'gradients of other strides go into Adam as they are': ('[grad.contiguous() for grad in torch', '[grad for grad in torch'),
            'targets do not start as copies': ('copy.deepcopy(self.critics).requires_grad_(False)', 'nn.ModuleList([Critic(obs_dim, action_dim), Critic(obs_dim, action_dim)]).requires_grad_(False)'),
            'targets are the critics': ('copy.deepcopy(self.critics).requires_grad_(False)', 'self.critics'),
            'source and target swapped': ('polyak_update(self.critics.parameters(), self.critics_target.parameters()', 'polyak_update(self.critics_target.parameters(), self.critics.parameters()'),
            'target entropy is +action_dim': ('start = -action_dim if', 'start = action_dim if'),
            'moving target overshoots': ('self.args.target_entropy_duration, 1)).clamp(max=1)', 'self.args.target_entropy_duration, 1))'),
            'fixed temperature is learned': ('        if self.args.autotune:', '        if True:'),
            'a loss is read back in each update': ('        return {name: value.detach() for', "        metrics['q'].item()\n        return {name: value.detach() for"),
            'obs and next_obs swapped in the buffer': ('np.hstack([obs, action, reward, next_obs, terminated]', 'np.hstack([next_obs, action, reward, obs, terminated]'),
            'wrap-around one slot early': ('self.rows[self.num_added % len(self.rows)]', 'self.rows[self.num_added % (len(self.rows) - 1)]'),
            'samples rows that were never written': ('num_stored = min(self.num_added, len(self.rows))', 'num_stored = len(self.rows)'),
            'only the first half is sampled': ('torch.randint(num_stored, (', 'torch.randint(num_stored // 2 + 1, ('),
            "gradient of a layer's input from the wrong side": ('onednn_linear(grad, w.t(), None) if', 'onednn_linear(grad, w, None) if'),
            'forward is not squashed': ('        return self.actor(obs)[0].tanh()\n', '        return self.actor(obs)[0]\n'),
            'Adam keeps pointers to its parameters': ('        parameters = self.owned()\n', '        parameters = self.__dict__.setdefault("kept", self.owned())\n'),
            'set_target_entropy moves the first value only': ('        self.target_entropy_end.fill_(value)\n', ''),
        },
        "loop": {
            "one batch for all updates of a step": ('                for _ in range(args.gradient_steps):\n                    losses = update(buffer.sample(args.batch_size))\n', '                batch = buffer.sample(args.batch_size)\n                for _ in range(args.gradient_steps):\n                    losses = update(batch)\n'),
            'note 003: obs does not advance during the random steps': ('            obs = next_obs\n', '            obs = next_obs if learning else obs\n'),
            'evaluation explores': ('env.step(agent.act(obs, explore=False))', 'env.step(agent.act(obs, explore=True))'),
            'training does not explore': ('agent.act(obs, explore=True)', 'agent.act(obs, explore=False)'),
            'time limits stored as ends': ('buffer.add(obs, action, reward, next_obs, terminated)', 'buffer.add(obs, action, reward, next_obs, terminated or truncated)'),
            'ends never stored': ('buffer.add(obs, action, reward, next_obs, terminated)', 'buffer.add(obs, action, reward, next_obs, False)'),
            'one seed for all episodes of an evaluation': ('env.reset(seed=2**31 - 1 - episode)', 'env.reset(seed=2**31 - 1)'),
            'no reset after an end': ('                obs = run.next_episode(info)', '                run.next_episode(info)'),
            'one random step too many': ('learning = buffer.num_added >= args.learning_starts', 'learning = buffer.num_added > args.learning_starts'),
            'actions are not rescaled': ('return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))', 'return env'),
            "obs is the environment's own array": ('return np.array(obs), float(reward)', 'return obs, float(reward)'),
            'one update whatever gradient_steps is': ('for _ in range(args.gradient_steps):', 'for _ in range(1):'),
            'an update in each step whatever train_interval is': ('if learning and step % args.train_interval == 0:', 'if learning:'),
        },
        "runs": {
            'moments of Adam are not saved': ('self.register_buffer(f"mean{i}", torch.zeros_like(parameter))', 'self.register_buffer(f"mean{i}", torch.zeros_like(parameter), persistent=False)'),
            'PyTorch is not seeded at a restart': ('        torch.manual_seed(seeds[1])\n', ''),
            'environment is not seeded at a restart': ('        return self.reset(seed=seeds[2])\n', '        return self.reset()\n'),
            'checkpoint written over in place': ('        os.replace(temporary, path)\n', '        torch.save({}, path)\n        time.sleep(0.2)\n        torch.save(state, path)\n'),
            'integers in exponent notation are cut': ('    if number % 1 != 0:', '    if False:'),
            'what is not finite goes on': ('not torch.stack(torch.aminmax(value)).isfinite().all()', 'False'),
            'failing tracker ends the run': ('    except Exception as error:\n        say(f"warning', '    except KeyError as error:\n        say(f"warning'),
            'a running run does not start anew at its checkpoint': ('            self.save(self.step)\n            return self.restart()\n', '            self.save(self.step)\n'),
            'every restart has the same seeds': ('np.random.SeedSequence([self.args.seed, self.step])', 'np.random.SeedSequence([self.args.seed])'),
            'one seed for environment, actions and PyTorch': ('.generate_state(3).tolist()', '.generate_state(1).tolist() * 3'),
            'a checkpoint at each end of an episode': ('return 0 < self.args.checkpoint_interval <= self.step - self.checkpoint_step', 'return self.args.checkpoint_interval > 0'),
            'a resumed run forgets its replay buffer': ('                restore(buffer, self.saved, "buffer")\n', '                pass\n'),
            'a resumed run counts from 0': ('self.dir, self.step = Path(args.resume), self.saved["step"]', 'self.dir, self.step = Path(args.resume), 0'),
            'a changed byte is not noticed': ('damaged = parts.testzip()', 'damaged = None'),
            'a run of another script is taken': ('state["script"] != Path(__file__).stem', 'False'),
            'a signal does not stop an evaluation': ('while not done and not signals:', 'while not done:'),
            'a signal is not heard': ('            if self.signals:\n', '            if False:\n'),
            'nothing is saved after an exception': ('saved = not isinstance(error, FloatingPointError) and self.save(self.learned)', 'saved = error is None and self.save(self.learned)'),
            'the deviation of an evaluation is its mean': ('(std, _) = episodes.mean(0), episodes.std(0)', '(std, _) = episodes.mean(0), episodes.mean(0)'),
            'no evaluation at the end': ('if self.is_due(self.args.eval_interval) or is_last:', 'if self.is_due(self.args.eval_interval):'),
            'losses are logged in each step': ('if self.is_due(self.args.log_interval):', 'if True:'),
            'nothing may be learned at all': ('    if args.learning_starts >= args.total_timesteps:\n', '    if False:\n'),
            'a second signal is ignored': ('        signal.signal(number, signal.SIG_DFL)  # a second one kills\n', ''),
            'a ring that is full goes on at its start': ('        self.num_added = state["num_added"]\n', '        self.num_added = len(state["rows"])\n'),
            'a run with CUDA graphs can be played on a GPU only': ('**own, cudagraphs=False)', '**own)'),
            'a failed compilation ends the run': ('            if not isinstance(error, OSError) and not', '            if not'),
            "the obs of a reset is the environment's own array": ('        obs = np.array(self.env.reset(**options)[0])', '        obs = (self.env.reset(**options)[0])'),
            'arguments given with --resume are ignored': ('    if others:\n', '    if False:\n'),
            "an environment's NaN is not named": ('        self.check_env("reward", math.isfinite(reward))\n', ''),
            'after an exception the step before is saved': ('        self.learned = self.step\n', '        self.learned = self.completed\n'),
        },
        "failures": {
            "stored numbers are not checked": ('check_finite({**state["agent"], **stored}, step)', 'check_finite(state["agent"], step)'),
            "a link leads to a module among the runs": ('if place and Path(place, *rest).resolve().is_relative_to(folder):', 'if place and Path(place, *rest).is_relative_to(folder):'),
            "the lock keeps the number of a process that is gone": ('    file.truncate(0)\n', ''),
            "the caller's signals are not given back": ('            signal.signal(number, handler)\n        self.bar.close()', '            signal.signal(number, signal.SIG_DFL)\n        self.bar.close()'),
            'the buffer is copied for a checkpoint': ('self.rows[: self.num_added].cpu().numpy()', 'self.rows[: self.num_added].cpu().clone().numpy()'),
            'all of the buffer is written': ('stored = self.rows[: self.num_added].cpu().numpy()', 'stored = self.rows.cpu().numpy()'),
            'a check casts the buffer': ('not torch.stack(torch.aminmax(value)).isfinite().all()', 'not value.double().sum().isfinite()'),
            'containers are not seen': ('free = min(free, float(limit', 'free = min(free, 1e12 + float(limit'),
            'only the innermost container is seen': ('for folder in (group, *group.parents):', 'for folder in (group,):'),
            'what a run needs besides the buffer is forgotten': ('1e-9 * size, 1e-9 * free - 1', '1e-9 * size, 1e-9 * free'),
            'a log that fails ends the run': ('            with warn_on_error("going on without TensorBoard until the next checkpoint"):\n                for', '            if True:\n                for'),
            'TensorBoard is not taken up again': ('            writer = writer or SummaryWriter(self.dir)  # a new one after an error\n', ''),
            'each log that fails is warned of': ('self.writer, self.wandb = self.writer, self.wandb, None, None', 'self.writer, self.wandb = self.writer, self.wandb, self.writer, None'),
            'a failed temporary file stays': ('        temporary.unlink(missing_ok=True)  # what a full disk left of it\n', '        pass\n'),
            'the agent is written after the buffer': ('            save(state, self.dir / "agent.pt")\n            save(state | {"buffer": stored}, self.dir / "checkpoint.pt")\n', '            save(state | {"buffer": stored}, self.dir / "checkpoint.pt")\n            save(state, self.dir / "agent.pt")\n'),
            'no lock': ('        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n', ''),
            'no lock of a run that goes on': ('            self.lock = lock(Path(args.resume))\n', '            self.lock = open(os.devnull)\n'),
            'the lock stays in the folder': ('            (self.dir / "lock").unlink()\n', '            pass\n'),
            'what does not fit gives a traceback': ('    except (KeyError, RuntimeError) as error:\n', '    except ZeroDivisionError as error:\n'),
            'modules of a run are imported': ('        if place and Path(place, *rest).resolve().is_relative_to(folder):\n', '        if False:\n'),
            'modules of a run are imported, in packages': ('Path(place, *rest).resolve()', 'Path(place).resolve()'),
            'where modules lie is believed to the run': ('    folder = Path(run_dir).resolve().parent if run_dir else Path(args.out_dir).resolve()\n', '    folder = Path(args.out_dir).resolve()\n'),
            'an environment that cannot be closed ends the run': ('    with contextlib.suppress(Exception):  # what cannot', '    with contextlib.suppress(ZeroDivisionError):  # what cannot'),
            'no word of a missing time limit': ('        if spec.max_episode_steps is None and', '        if False and'),
            'a first obs that is not finite is taken': ('        self.check_env("obs", np.isfinite(obs).all())\n        return obs\n', '        return obs\n'),
            'an array of one element is no reward': ('    return np.asarray(reward).item()\n', '    return reward\n'),
            'an action of one value becomes nan': ('(np.isfinite(width) & (width > 0)).all()', '(np.isfinite(width)).all()'),
            'Ctrl-C gives a traceback': ('    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C', '    signal.getsignal(signal.SIGINT)  # Ctrl-C'),
            'Ctrl-C ends what runs in the background': (' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:', ':'),
            'a dot becomes the name in Weights & Biases': ('self.dir.resolve().name)', 'self.dir.name)'),
        },
    },
    "td3": {
        "failures": {
            "an error without a text has no name": ('return (str(error).strip() or type(error).__name__).splitlines()[0]', 'return str(error).strip().splitlines()[0]'),
            "a resumed run is refused by wandb": ('resume="allow"', 'resume="never"'),
        },
        "command_line": {
            "an evaluation has the threads of its run": ('"capture_video", "cuda", "torch_threads"]', '"capture_video", "cuda"]'),
        },
        "equations": {
            'note 003: no terminal mask': ('gamma * (1 - terminated) * torch', 'gamma * torch'),
            'maximum of the twins in the target': ('torch.minimum(next_q1, next_q2)', 'torch.maximum(next_q1, next_q2)'),
            'note 003: losses are sums': ('return -q.mean()', 'return -q.sum()'),
            'actor descends the value': ('return -q.mean()', 'return q.mean()'),
            'noise of the target action is not clipped': ('noise.clamp(-noise_clip, noise_clip)', 'noise'),
            'target action leaves its range': ('(-noise_clip, noise_clip)).clamp(-1, 1)', '(-noise_clip, noise_clip))'),
            'one critic is not trained': ('F.mse_loss(q1, target) + F.mse_loss(q2, target)', '2 * F.mse_loss(q1, target)'),
        },
        "continuous": {
            'note 003: online critics in the target': ('for critic in self.critics_target)', 'for critic in self.critics)'),
            'online actor in the target': ('smooth_target_action(self.actor_target(next_obs)', 'smooth_target_action(self.actor(next_obs)'),
            'targets move in each update': ('            polyak_update(self.critics.parameters(), self.critics_target.parameters(), self.args.tau)\n', '        polyak_update(self.critics.parameters(), self.critics_target.parameters(), self.args.tau)\n        if self.since_actor == 0:\n'),
            'actor climbs the second critic': ('q = self.critics[0](obs, new_action)', 'q = self.critics[1](obs, new_action)'),
            'target noise of deviation 1': ('noise = self.args.target_noise * torch', 'noise = torch'),
            'target actor never moves': ('polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.args.tau)', 'pass'),
            'delay starts anew at a resume': ('self.num_updates = int(state)', 'self.num_updates = 0'),
            'exploration leaves the range': ('torch.randn_like(action)).clamp(-1, 1)\n        return', 'torch.randn_like(action))\n        return'),
        },
        "loop": {
            'note 003: delay counted within the episode': ('                obs = run.next_episode(info)', '                agent.num_updates = 0\n                obs = run.next_episode(info)'),
            'time limits stored as ends': ('buffer.add(obs, action, reward, next_obs, terminated)', 'buffer.add(obs, action, reward, next_obs, terminated or truncated)'),
        },
    },
    "ddpg": {
        "equations": {
            'note 003: no terminal mask': ('gamma * (1 - terminated) * next_q', 'gamma * next_q'),
            'note 003: lost prime, a hard copy in each step': ('q_target.lerp_(q, tau)', 'q_target.lerp_(q, 1.0)'),
            'actor descends the value': ('return -q.mean()', 'return q.mean()'),
        },
        "continuous": {
            'online critic in the target': ('self.critic_target(next_obs, self.actor', 'self.critic(next_obs, self.actor'),
            'online actor in the target': ('next_obs, self.actor_target(next_obs))', 'next_obs, self.actor(next_obs))'),
            'note 003: action is not clipped': ('action = (action + self.noise).clamp(-1, 1)', 'action = action + self.noise'),
            'Ornstein-Uhlenbeck noise forgets': ('self.noise.mul_(kept)', 'self.noise.mul_(0)'),
            "actor's loss sees the stored action": ('actor_loss(self.critic(obs, self.actor(obs)))', 'actor_loss(self.critic(obs, action + 0 * self.actor(obs)))'),
            'target networks start elsewhere': ('copy.deepcopy(self.critic).requires_grad_(False)', 'Critic(obs_dim, action_dim).requires_grad_(False)'),
        },
        "loop": {
            'noise goes on into the next episode': ('                agent.noise.zero_()\n', ''),
            'note 003: obs does not advance during the random steps': ('            obs = next_obs\n', '            obs = next_obs if learning else obs\n'),
            'ends never stored': ('buffer.add(obs, action, reward, next_obs, terminated)', 'buffer.add(obs, action, reward, next_obs, False)'),
        },
    },
    "dqn": {
        "probes": {
            "frames are skipped twice": ('if env.spec.kwargs.get("frameskip") == 1:', 'if env.spec.kwargs.get("frameskip", 1):'),
        },
        "equations": {
            'note 003: no terminal mask': ('gamma * (1 - terminated) * next', 'gamma * next'),
            'exponential schedule has no floor': ('return max(end, start * decay**step)', 'return start * decay**step'),
            'linear schedule goes on after its end': ('min(step / max(duration, 1), 1)', 'step / max(duration, 1)'),
            'loss of the best action instead of the one taken': ('q.gather(-1, action.unsqueeze(-1)).squeeze(-1)', 'q.max(-1).values'),
        },
        "dqn": {
            "the size of a checkpoint is that of all room for frames": ('if tensors["frames"].nbytes > self.saved_size:', 'if self.frames.nbytes > self.saved_size:'),
            "after a lost life the old observation is shown": ('(obs, _), terminated = self.env.reset(), False', '_, terminated = self.env.reset(), False'),
            "a run without its frames learns at once": ('learning = buffer.num_added >= args.learning_starts', 'learning = step > args.learning_starts'),
            'pixels are not divided by 255': ('super().forward((obs / 255).contiguous', 'super().forward(obs.float().contiguous'),
            'losses are not checked': ('            check_finite(losses, self.step)\n', ''),
            'the same seed for each episode of an evaluation': ('seed=2**31 - 1 - episode)', 'seed=2**31 - 1)'),
            "Atari's rewards are clipped inside the statistics": ('atari_wrappers.EpisodicLifeEnv(gym.wrappers.RecordEpisodeStatistics(env))', 'atari_wrappers.EpisodicLifeEnv(gym.wrappers.RecordEpisodeStatistics(atari_wrappers.ClipRewardEnv(env)))'),
            'online network in the target': ('td_target(reward, terminated, self.q_network_target(next_obs)', 'td_target(reward, terminated, self.q_network(next_obs)'),
            'value of the same observation': ('self.q_network_target(next_obs)', 'self.q_network_target(obs)'),
            'gradient through the target': ('        with torch.no_grad():\n            target', '        if True:\n            self.q_network_target.requires_grad_(True)\n            target'),
            'evaluation explores': ('if explore and torch.rand', 'if torch.rand'),
            'never explores': ('if explore and torch.rand(()) < self.epsilon', 'if False'),
            'coin the wrong way round': ('torch.rand(()) < self.epsilon', 'torch.rand(()) > self.epsilon'),
            'target moves in each update': ('        self.optimizer.minimize(losses["q_loss"])\n', '        self.optimizer.minimize(losses["q_loss"])\n        self.update_target()\n'),
            'note 003: target counts the steps of the episode': ('if learning and step % args.target_update_interval == 0', 'if learning and env.get_wrapper_attr("time") % args.target_update_interval == 0'),
            'note 003: obs does not advance before learning': ('            obs = next_obs\n', '            obs = next_obs if learning else obs\n'),
            'time limits stored as ends': ('buffer.add(obs, action, reward, next_obs, terminated)', 'buffer.add(obs, action, reward, next_obs, terminated or truncated)'),
            'updates in each step': ('if learning and step % args.train_interval == 0', 'if learning'),
            'pixels are not scaled': ('(obs / 255)', '(obs / 1)'),
            'next stack from the next episode': ('        self.add_frame(next_obs[-1])\n', '        if not terminated:\n            self.add_frame(next_obs[-1])\n'),
            'an episode starts with one frame': ('            for frame in obs:\n                self.add_frame(frame)\n', '            self.add_frame(obs[-1])\n'),
            'stacks whose first frame was overwritten': ('self.stored[0] - self.stack < self.num_frames - len(self.frames) - 1', 'self.stored[0] < self.num_frames - len(self.frames)'),
            'next_obs is obs': ('frames[:, 1:], terminated', 'frames[:, :-1], terminated'),
            'evaluation stops at a lost life': ('if training else WholeGame(env)', 'if training else env'),
            'evaluation waits for a press of FIRE': ('            (obs, _), terminated = self.env.reset(), False\n', '            terminated = False\n'),
        },
        "failures": {
            'frames are copied for a checkpoint': ('torch.from_numpy(value.cpu().numpy()) for', 'torch.from_numpy(value.cpu().numpy().copy()) for'),
            'any frames are taken for a stack': ('        if not np.array_equal(next_obs[:-1], obs[1:]):\n', '        if False:\n'),
            'frames of any kind are taken': (' and space.dtype == np.uint8\n', '\n'),
            'actions are arrays': ('    return gym.wrappers.TransformAction(env, int, env.action_space)  # environments index with it\n', '    return env\n'),
        },
    },
    "ddqn": {
        "equations": {
            "DQN's target": ('next_q_target.gather(-1, chosen).squeeze(-1)', 'next_q_target.amax(-1)'),
            'online network judges': ('next_q_target.gather(-1, chosen)', 'next_q.gather(-1, chosen)'),
            'target network chooses': ('chosen = next_q.argmax', 'chosen = next_q_target.argmax'),
        },
        "dqn": {
            'networks swapped': ('next_q, next_q_target = self.q_network(next_obs), self.q_network_target(next_obs)', 'next_q_target, next_q = self.q_network(next_obs), self.q_network_target(next_obs)'),
        },
    },
    "ppo_discrete": {
        "ppo": {
            'note 002: the entropy is added': ('vf_coef * value_loss - (ent_coef', 'vf_coef * value_loss + (ent_coef'),
            'note 001: target entropy of -log n': ('start = 0.5 if args.target_entropy is None', 'start = -1.0 if args.target_entropy is None'),
            'note 001: learned coefficient the wrong way round': ('log_ent_coef * (entropy.detach() - target_entropy)', 'log_ent_coef * (target_entropy - entropy.detach())'),
            'gradient of the learned coefficient reaches the policy': ('(entropy.detach() - target', '(entropy - target'),
            'entropy in bits': ('-(log_probs.exp() * log_probs).sum(-1)', '-(log_probs.exp() * log_probs).sum(-1) / math.log(2)'),
            'time limits are ends': ('gamma * (1 - terminated) * next_value', 'gamma * (1 - done) * next_value'),
            'no terminal mask': ('gamma * (1 - terminated) * next_value', 'gamma * next_value'),
            'advantages go on into the next episode': ('gamma * gae_lambda * (1 - done[t])', 'gamma * gae_lambda * (1 - terminated[t])'),
            'lambda without gamma': ('gamma * gae_lambda * (1', 'gae_lambda * (1'),
            'no advantage of what follows in the first step': ('for t in reversed(range(len(delta) - 1))', 'for t in reversed(range(1, len(delta) - 1))'),
            'advantages forward in time': ('for t in reversed(range(len(delta) - 1))', 'for t in range(len(delta) - 1)'),
            'maximum of the two objectives': ('-torch.minimum(ratio', '-torch.maximum(ratio'),
            'nothing is clipped': ('ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantage', 'ratio * advantage'),
            'ratio upside down': ('(log_prob - old_log_prob).exp()\n    return', '(old_log_prob - log_prob).exp()\n    return'),
            'value loss without the half': ('0.5 * F.mse_loss', 'F.mse_loss'),
            'target without the value': ('        target = advantage + value\n', '        target = advantage\n'),
            'value of the next episode at an end': ('                next_obs[i] = info["final_obs"][i]\n', '                pass\n'),
            'the most likely action only': ('        if not explore:', '        if True:'),
            'noise of another distribution': ('softmax(-1).multinomial(1)', 'softmax(-1).sqrt().multinomial(1)'),
            'obs does not advance': ('                obs = new_obs', '                pass'),
            'step size does not fall': ('self.optimizer.lr.fill_(', '('),
            'exponential schedule is linear': ('self.ent_coef.copy_(linear_schedule(start.log(), end, args.ent_coef_duration, step).exp())', 'self.ent_coef.copy_(linear_schedule(start, args.ent_coef_end, args.ent_coef_duration, step))'),
            'gradients are not cut': ('(max_grad_norm / norm).clamp(max=1)', '(max_grad_norm / norm).clamp(min=1, max=1)'),
            'each pass takes the same minibatches': ('torch.randperm(len(obs), device=self.device)', 'torch.arange(len(obs), device=self.device)'),
            'a large KL goes on': ('if torch.stack(kls).mean() > self.args.target_kl:', 'if False:'),
            'a single sample is normalised': (' and len(advantage) > 1:', ':'),
            'advantages are never normalised': ('if self.args.norm_adv and', 'if False and'),
            'an episode is logged twice': ('                self.log_episode(ended["episode"]["r"][i], ended["episode"]["l"][i])\n', '                self.log_episode(ended["episode"]["r"][i], ended["episode"]["l"][i])\n                self.log_episode(ended["episode"]["r"][i], ended["episode"]["l"][i])\n'),
        },
        "heads": {
            'log-probability of the last head only': ('dim=-1).sum(-1)\n        return log_prob', 'dim=-1)[..., -1]\n        return log_prob'),
            'log-probability averaged over heads': ('dim=-1).sum(-1)\n        return log_prob', 'dim=-1).mean(-1)\n        return log_prob'),
            'every head takes the first action': ('action[:, k]', 'action[:, 0]'),
            'one weight for all heads': ('- (ent_coef * entropy).sum()', '- ent_coef.mean() * entropy.sum()'),
            'one coefficient is learned for all heads': ('log_ent_coef * (entropy.detach() - target_entropy)', 'log_ent_coef.mean() * (entropy.detach() - target_entropy)'),
            'targets are shares of the entropy of all heads': ('return (torch.tensor(share, dtype=torch.float64) * largest).float()', 'return (torch.tensor(share, dtype=torch.float64) * largest.sum().expand(len(largest))).float()'),
            'entropy is that of the first head': ('"entropy": entropy.sum()', '"entropy": entropy[0]'),
            'names of heads are those of others': ('[f"{name}_{k}" for k in range(len(values))]', '[f"{name}_{k}" for k in reversed(range(len(values)))]'),
            'the number of values is not checked': ('    if any(len(value) != heads for value in given):', '    if False:'),
            'bounds of the first value only': ('np.max(value) <= high', 'np.ravel(value)[0] <= high'),
            'spaces of other starts are taken': (' and not space.start.any():', ':'),
        },
        "probes": {
            "an episode has the first environment's length": ('ended["episode"]["l"][i])', 'ended["episode"]["l"][0])'),
            'one seed for all environments': ('return self.reset(seed=seeds[2])', 'return self.reset(seed=[seeds[2]] * self.args.num_envs)'),
        },
        "runs": {
            "a duration without an end": ('if (args.target_entropy_end is None) != (args.target_entropy_duration == 0):', 'if args.target_entropy_end is not None and args.target_entropy_duration == 0:'),
            'a part is left over': ('    if args.num_envs * args.num_steps % args.num_minibatches:', '    if False:'),
            'PyTorch is not seeded at a restart': ('        torch.manual_seed(seeds[1])\n', ''),
        },
    },
    "ppo_continuous": {
        "ppo": {
            "scaled rewards are clipped above only": ('return (reward / self.statistics.std).clamp(-10, 10)', 'return (reward / self.statistics.std).clamp(max=10)'),
            "target_kl is compared with the last minibatch": ('if torch.stack(kls).mean() > self.args.target_kl:', 'if kls[-1] > self.args.target_kl:'),
            'target_kl is compared with all passes': ('for losses in history[-self.args.num_minibatches :]]', 'for losses in history]'),
            'returns of rewards are discounted by the default': ('RewardScaler(args.num_envs, args.gamma)', 'RewardScaler(args.num_envs, Args.gamma)'),
            'only large ratios count as clipped': ('((ratio - 1).abs() > self.args.clip_coef)', '(ratio - 1 > self.args.clip_coef)'),
            'the learned coefficient is not used': ('        ent_coef = self.log_ent_coef.detach().exp() if self.args.ent_autotune else self.ent_coef\n', '        ent_coef = self.ent_coef\n'),
            'the scaler of rewards takes ends for all ends': ('self.reward_scaler(reward, done)', 'self.reward_scaler(reward, terminated)'),
            'the step size that is logged is the argument': ('learning_rate=agent.optimizer.lr)', 'learning_rate=args.learning_rate)'),
            'note 002: the entropy is added': ('vf_coef * value_loss - ent_coef * entropy', 'vf_coef * value_loss + ent_coef * entropy'),
            'note 001: entropy is a mean over dimensions': ('math.e)).sum(-1)', 'math.e)).mean(-1)'),
            'note 001: log-probability is a mean over dimensions': ('return log_normal.sum(-1)', 'return log_normal.mean(-1)'),
            'time limits are ends': ('gamma * (1 - terminated) * next_value', 'gamma * (1 - done) * next_value'),
            'standard deviation for its logarithm': ('(action - mean) / log_std.exp()).square()', '(action - mean) / log_std).square()'),
            'log std is not bounded': ('self.network.log_std.clamp_(LOG_STD_MIN, LOG_STD_MAX)', 'pass'),
            'head is not bounded': ('return mean, bound_log_std(LOG_STD_START + log_std)', 'return mean, LOG_STD_START + log_std'),
            'normaliser moves before the update': ('        obs, next_obs = self.scale(seen_obs)', '        self.normalizer.update(seen_obs)\n        obs, next_obs = self.scale(seen_obs)'),
            'normaliser never learns': ('            self.normalizer.update(seen_obs)\n', '            pass\n'),
            'normaliser is not applied while acting': ('        mean, log_std = self.network.policy(self.scale(obs))\n        action', '        mean, log_std = self.network.policy(obs)\n        action'),
            'normaliser is not saved': ('self.register_buffer("mean", torch.zeros(shape))', 'self.register_buffer("mean", torch.zeros(shape), persistent=False)'),
            'variances are averaged without the shift of the means': (' + share * (1 - share) * shift.square()', ''),
            'returns go on into the next episode': ('self.discounted_return = (1 - e) * returns[-1]', 'self.discounted_return = returns[-1]'),
            'returns of the next step': ('returns.append(r + self.gamma * self.discounted_return)', 'returns.append(r + self.gamma * self.discounted_return * (1 - e))'),
            'returns start anew in each rollout': ('        returns = []\n', '        returns = []\n        self.discounted_return = torch.zeros_like(self.discounted_return)\n'),
            'rewards are centred too': ('(reward / self.statistics.std)', '((reward - self.statistics.mean) / self.statistics.std)'),
            'actions leave the range': ('return gym.wrappers.ClipAction(gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1)))', 'return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))'),
            'deterministic while training': ('torch.randn_like(mean) if explore else mean', 'torch.randn_like(mean) if False else mean'),
            'forward does not scale observations': ('        mean, _ = self.network.policy(self.scale(obs))\n', '        mean, _ = self.network.policy(obs)\n'),
            'explained variance upside down': ('unexplained / target.var(correction=0).clamp(min=1e-8)', 'target.var(correction=0) / unexplained.clamp(min=1e-8)'),
            'anneal forgets a target entropy that was set': ('        start, end = self.target_entropy_start, self.target_entropy_end\n', '        start, end = (torch.tensor(float(self.args.target_entropy or 0)),) * 2\n'),
        },
        "failures": {
            'the first obs of a later episode is not checked': ('np.isfinite(next_obs).all() and np.isfinite(obs).all())', 'np.isfinite(next_obs).all())'),
            'an integer stays one': ('torch.tensor(float(args.ent_coef))', 'torch.tensor(args.ent_coef)'),
        },
        "runs": {
            'episodes are not cut at a checkpoint': ('            truncated = np.ones_like(truncated)\n', '            pass\n'),
        },
    },
    "benchmark/grid": {
        "benchmark": {
            'the hash leaves out the section about speed': ('ast.parse(part_1 + speed)', 'ast.parse(part_1)'),
            'True is a number': (' and isinstance(value, bool) == isinstance(default, bool)', ''),
            'two rows may be the same': ('if twice := sorted(', 'if False and sorted('),
        },
        "grid": {
            'other arguments do not make a result an old one': ('return before != now["arguments"] or about["code"] != now["code"]', 'return about["code"] != now["code"]'),
            'other code does not make a result an old one': ('return before != now["arguments"] or about["code"] != now["code"]', 'return before != now["arguments"]'),
            "PPO's steps are not rounded": ('math.ceil(arguments["total_timesteps"] / rollout) * rollout', 'arguments["total_timesteps"]'),
            'rows of a result are not in order': ('for step, kind, value in sorted(rows))', 'for step, kind, value in rows)'),
            'a result of a run with a video is an old one': ('"wandb_entity", "capture_video"}', '"wandb_entity"}'),
            'other evaluations are the same result': ('OTHER |= {"log_interval",', 'OTHER |= {"log_interval", "eval_episodes",'),
            'a grid may set the folder': ('SET_BY_RUN = {"env_id", "seed", "track", "resume", "evaluate", "out_dir"}', 'SET_BY_RUN = {"env_id", "seed", "track", "resume", "evaluate"}'),
            'the slash of an id makes a folder': ("{self.env_id.replace('/', '-')}", '{self.env_id}'),
            'an integer is no number': ('float: (int, float), str: str}', 'float: float, str: str}'),
            'a seed may be negative': ('type(seed) is int and seed >= 0', 'type(seed) is int'),
            'True is a number of seeds': ('if type(seeds) is int else seeds', 'if isinstance(seeds, int) else seeds'),
            'no environments are a list of them': ('not isinstance(env_ids, list) or not env_ids or', 'not isinstance(env_ids, list) or'),
            'experiments are counted from 0': ('enumerate(entries, 1)', 'enumerate(entries)'),
            'entries of the list need not be tables': ('if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):', 'if not isinstance(entries, list):'),
            'returns have one digit': ('{value:.3f}', '{value:.1f}'),
            'a result is cut off by a full disk': ('    path.with_suffix(".tmp").write_text("\\n".join(lines) + "\\n", "utf-8")\n    path.with_suffix(".tmp").replace(path)', '    path.write_text("\\n".join(lines) + "\\n", "utf-8")'),
            'a row that is cut off is another error': ('except (KeyError, TypeError, ValueError) as error:', 'except (KeyError, ValueError) as error:'),
        },
    },
    "benchmark/run": {
        "benchmark": {
            'a failed run is a success': ('return 1 if failed else', 'return 0 if failed else'),
            'results of other code are not redone': ('or (options.redo_changed and run in changed)', ''),
        },
        "grid": {
            "ten thousand episodes of a long run": ('EventAccumulator(str(run_dir), size_guidance={"scalars": 0})', 'EventAccumulator(str(run_dir))'),
            "where a run began is forgotten": ('before + [here] * (here not in before)', '[here]'),
            'a run goes on with other code': ('{name: old.get(name) for name in made} != made', 'old.get("arguments") != made["arguments"]'),
            'the first of two runs is resumed': ('run_dir = max(run_dirs, key=started_at)\n        if track', 'run_dir = min(run_dirs, key=started_at)\n        if track'),
            'pauses are running time': ('sum(gap for gap in gaps if gap < 600)', 'sum(gaps)'),
            'missing evaluations are not missed': (' or longest >= arguments["eval_interval"] + rollout', ''),
            'one word of --only is enough': ('if all(word in f"/{run.name}/"', 'if any(word in f"/{run.name}/"'),
            'one worker more': ('len(active) < options.workers and', 'len(active) <= options.workers and'),
            'time left after a resume is as from the start': ('seconds * (total - steps) / (steps - first)', 'seconds * (total - steps) / steps'),
            'changes that are not committed are not said': ('" with changes" * bool(status.stdout)', '""'),
            'the checkpoint is packed after the events': ('key=lambda path: path.name != "checkpoint.pt"', 'key=lambda path: path.name == "checkpoint.pt"'),
            "cores are the machine's": ('return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()', 'return os.cpu_count()'),
            'the last GPU is left out': ('*gpus.split("\\n")[:-1]]', '*gpus.split("\\n")[:-2]]'),
            'a processor without a name is an error': ('except (OSError, TypeError):', 'except OSError:'),
            'changes of another script count': (', "--", f"{script}.py"]', ']'),
            'without git nothing runs': ('except (OSError, subprocess.CalledProcessError):', 'except subprocess.CalledProcessError:'),
            "a cluster does not get the benchmark's programs": ('[*ROOT.glob("*.py"), *BENCHMARK.glob("*.py")]', 'ROOT.glob("*.py")'),
            'nothing says that a run goes on without --track': ('if track and not json', 'if False and not json'),
            'a file is cut off by a full disk': ('    path.with_suffix(".tmp").write_text(json.dumps(content, indent=1), "utf-8")\n    path.with_suffix(".tmp").replace(path)', '    path.write_text(json.dumps(content, indent=1), "utf-8")'),
            'another commit is another script': ('made = made_by(run, (scripts / f"{run.script}.py").read_text("utf-8"))\n', 'made = made_by(run, (scripts / f"{run.script}.py").read_text("utf-8"))\n    made["commit"] = json.loads((scripts / "commits.json").read_text("utf-8"))[run.script]\n'),
            'a broken made_by.json stops all': ('except (OSError, ValueError):\n        old', 'except OSError:\n        old'),
            'hours are in the minutes': ('{int(left // 60 % 60):02}', '{int(left // 60):02}'),
            'a run without a word has no end': ("{lines[-1] if lines else 'no output'}", '{lines[-1]}'),
            'a silent error has no first line': ('(str(error).strip() or type(error).__name__).splitlines()[0]', 'str(error).strip().splitlines()[0]'),
            'the result is that of the first folder': ('run_dir = max(run_dirs, key=started_at)\n    arguments', 'run_dir = min(run_dirs, key=started_at)\n    arguments'),
            'no run is another error': ('    if not run_dirs:\n        raise ValueError(f"there is no run in {folder}")\n', '    if not run_dirs:\n        raise FileNotFoundError(f"there is no run in {folder}")\n'),
            'a rollout is that of one environment': ('rollout = arguments.get("num_envs", 1) * arguments.get("num_steps", 1)\n    longest', 'rollout = arguments.get("num_steps", 1)\n    longest'),
            'evaluations may be two rollouts late': ('>= arguments["eval_interval"] + rollout', '>= arguments["eval_interval"] + 2 * rollout'),
            'results have the name of a team': ('if name not in ("out_dir", "wandb_entity")', 'if name != "out_dir"'),
            'devices are there once for each start': ('", ".join(dict.fromkeys(devices))', '", ".join(devices)'),
            'runs start after a signal': ('while waiting and len(active) < options.workers and not signals.count:', 'while waiting and len(active) < options.workers:'),
            'a second signal is the first again': ('signal.SIGTERM if count == 1 else signal.SIGKILL', 'signal.SIGTERM'),
            'a package that is not there ends all': ('except (OSError, ImportError) as error:', 'except OSError as error:'),
            'the last run is the first': ('waiting.pop(0)', 'waiting.pop()'),
            'runs do not hold the lock': ('options.track, (lock,)), time', 'options.track, ()), time'),
            'runs are of the scripts as they are edited': ('active[run] = start(run, folder, scripts, options', 'active[run] = start(run, folder, ROOT, options'),
            'progress is said in each look': ('                told = time.monotonic()\n                for run, (_, begun)', '                for run, (_, begun)'),
            'time is as from the start of the grid': ('told - begun))', 'told))'),
            'a file that goes meanwhile ends a run': ('contextlib.suppress(FileNotFoundError, IsADirectoryError)', 'contextlib.suppress(IsADirectoryError)'),
            "the keeper's folder is that of all runs": ('unpack(files, self.folder / name)', 'unpack(files, self.folder)'),
            'a run elsewhere begins anew': ('        unpack(thread.submit(ray.get, keeper.files.remote(run.name)).result(), folder)\n', ''),
            'the last files of a run elsewhere are lost': ('            process.kill()\n        thread.submit(ray.get, keeper.keep.remote(run.name, pack(folder))).result()\n', '            process.kill()\n'),
            'a run elsewhere sends all in each second': ('kept = written', 'pass'),
            'a run elsewhere is not stopped': ('            process.terminate()\n', ''),
            'retries are forgotten': ('"max_retries": options.retries}', '"max_retries": 3}'),
            'a run has one core whatever its threads': ('options(num_cpus=threads, **needs)', 'options(num_cpus=1, **needs)'),
            'a cancelled task has failed': ('yield run, STOPPED', 'yield run, "cancelled"'),
            'the first signal kills tasks': ('force=count > 1', 'force=count > 0'),
            'of a failed task the first line is said': ('str(error).strip().splitlines()[-1]', 'str(error).strip().splitlines()[0]'),
            'progress of runs that have ended': ('                    if name in waited_for:\n                        say(line)', '                    say(line)'),
            'no worker is enough': ('if options.workers < 1:', 'if options.workers < 0:'),
            "a folder is relative to each run's": ('options.runs, options.results = options.runs.resolve(), options.results.resolve()', 'options.results = options.results.resolve()'),
            'a grid that is not there is a traceback': ('        runs = grid(options.experiments)\n    except (OSError, ValueError) as error:', '        runs = grid(options.experiments)\n    except ValueError as error:'),
            'a run without a result is finished': ('                    status = f"no result: {error!r}"', '                    continue'),
            'a run that fails after a signal was stopped': ('signals.count > 1 or (signals.count and status in (STOPPED, -signal.SIGTERM, -signal.SIGKILL))', 'signals.count'),
            'after a second signal runs have failed': ('signals.count > 1 or (signals.count and status in', '(signals.count and status in'),
            'errors are on stdout': ('file=sys.stderr if error else sys.stdout', 'file=sys.stdout'),
            'broken results are not refused': ('        have = {run: read_result(path)[0] for run, path in have.items() if path.exists()}\n    except ValueError as error:', '        have = {run: read_result(path)[0] for run, path in have.items() if path.exists()}\n    except KeyError as error:'),
            'what is to do has begun': ('begun = (options.runs / run.name / "log.txt").exists()', 'begun = (options.runs / run.name).parent.exists()'),
        },
    },
    "benchmark/report": {
        "benchmark": {
            "their deviation's denominator is forgotten": ('(figure["seeds"] - (1 - figure["ddof"]))', 'figure["seeds"]'),
            'returns beyond the steps compared': ('if of == kind and step <= steps]', 'if of == kind]'),
            'ten training episodes for a hundred': ('num = 100 if kind == "train"', 'num = 10 if kind == "train"'),
        },
        "grid": {
            'runs that are too short count': ('if rows and rows[-1][0] >= self.steps]', 'if rows]'),
            'old results are not marked': ('" †" * any(', '" †" * all('),
            'ratio of medians for median of ratios': ('np.median([one[name] / one[peer] for one in rounds])', 'np.median([one[name] for one in rounds]) / np.median([one[peer] for one in rounds])'),
            'a result without rows is an error': ('if rows and rows[-1][0] >= self.steps]', 'if rows[-1][0] >= self.steps]'),
            'seeds that are missing are not said': (' + f" of {row.num_seeds}" * (len(ours) < row.num_seeds)', ''),
            'threads are in the order of words': ('key=lambda of: int(of[0])', 'key=lambda of: of[0]'),
            'threads of a GPU are not said': ('f", {threads} threads" * (threads != "1")', '""'),
            "code of a GPU's case is not found": ('path.stem.removesuffix("-cuda")', 'path.stem'),
            'one machine is said with all cases': ('if len(notes) == 1:', 'if len(notes) == 0:'),
            'crosses are in every panel': ('if one["environment"] == env_id:', 'if one["environment"] in env_ids:'),
            'crosses are in another colour': ('"color": colors[one["script"]]', '"color": colors[scripts[0]]'),
            'curves are in every panel': ('if row.env_id == env_id:', 'if row.env_id in env_ids:'),
            'the Chinese README stays as it is': ('(ROOT / "README.md", ROOT / "README.zh-CN.md", BENCHMARK / "README.md")', '(ROOT / "README.md", BENCHMARK / "README.md")'),
            'notes without data are drawn': ('if (path.parent / "data" / path.stem).exists():', 'if (path.parent / "data").exists():'),
            'a broken result is a traceback': ('except ValueError as error:\n        sys.exit', 'except KeyError as error:\n        sys.exit'),
        },
    },
    "benchmark/plot": {
        "grid": {
            'five seeds have no interval': ('if len(values) < MIN_SEEDS:', 'if len(values) <= MIN_SEEDS:'),
            'negative thousands have digits': ('abs(value if like is None else like) >= 1000', '(value if like is None else like) >= 1000'),
            'one seed is seeds': ("seed{'s' * (len(values) > 1)}", 'seeds'),
            'a curve of two points has no dots': ('if len(x) < 3 else None', 'if len(x) < 2 else None'),
            'four panels beside each other': ('columns = min(3, num_panels)', 'columns = min(4, num_panels)'),
            'panels left over are drawn': ('for panel in axes.flat[num_panels:]:', 'for panel in axes.flat[num_panels + 1:]:'),
            'hours are in thousands': ('    if not hours:\n', '    if True:\n'),
            'the first evaluation of a step counts': ('                    evaluations[event.step] = (self.busy / 3600, value.simple_value)', '                    evaluations.setdefault(event.step, (self.busy / 3600, value.simple_value))'),
            'files in any order': ('        events.sort(key=lambda event: event.wall_time)\n', ''),
            'hours are steps': ('at = [run.hours if hours else run.steps for run in runs]', 'at = [run.steps for run in runs]'),
            'seeds that do not overlap are an error': ('self.x = x if len(x) else np.array([end])', 'self.x = x'),
            'a folder makes a curve': ('"resume", "evaluate", "out_dir", "cuda"', '"resume", "evaluate", "cuda"'),
            'a video makes a curve': ('"wandb_entity", "capture_video", "log_interval"}', '"wandb_entity", "log_interval"}'),
            'evaluations do not tell runs apart': ('"capture_video", "log_interval"}', '"capture_video", "log_interval", "eval_episodes"}'),
            'the order of arguments makes a curve': ('json.dumps(learned, sort_keys=True)', 'json.dumps(learned)'),
            'the table is in steps': ('"hours" if args.hours else "steps", "seeds"', '"steps", "seeds"'),
            'the table has the first values': ('spread(curve.values[:, -1])', 'spread(curve.values[:, 0])'),
            'the axis of hours is of steps': ('label_axes(panel, env_id, args.hours)', 'label_axes(panel, env_id)'),
            'the picture has another name': ('default=Path("plot.png")', 'default=Path("plots.png")'),
        },
        "benchmark": {
            'of a seed that was run twice the shorter counts': ('for run in sorted(runs, key=lambda run: run.steps[-1]):', 'for run in sorted(runs, key=lambda run: -run.steps[-1]):'),
            'pauses are hours': (' and event.file_version == ""', ''),
            'seeds make curves': ('NOT_COMPARED = {"seed", "env_id"', 'NOT_COMPARED = {"env_id"'),
        },
    },
    "benchmark/speed": {
        "benchmark": {
            'compiled is not': ('["--compile" if "compiled" in contestant else "--no-compile"]', '["--no-compile"]'),
        },
        "grid": {
            'the clock has the warm-up in it': ('if event.step >= warm_up]', 'if event.step >= 0]'),
            'one core whatever the threads': ('cores = sorted(os.sched_getaffinity(0))[:threads]', 'cores = sorted(os.sched_getaffinity(0))[:1]'),
            'evaluations are measured': ('["--eval-interval", "0", "--checkpoint-interval", "0"]', '["--checkpoint-interval", "0"]'),
            'the warm-up is among the steps': ('total = warm_up + steps', 'total = steps'),
            "PPO's warm-up is that of the others": ('warm_up = 2_048 if is_ppo else 1_000', 'warm_up = 1_000'),
            'epsilon falls over all steps': ('str(total // 10)]', 'str(total)]'),
            'JAX takes the GPU': ('environment["JAX_PLATFORMS"] = "cpu"', 'pass'),
            "a GPU's process is held to a core": ('    if not cuda:\n', '    if True:\n'),
            'the peer is on the CPU': ('"cuda" if cuda else "cpu"]', '"cpu"]'),
            "the peer's clock has the warm-up in it": ('self.num_timesteps > WARM_UP:', 'self.num_timesteps > 0:'),
            "the peer's steps are all": ('(total - WARM_UP) /', 'total /'),
            'SBX is SB3': ('    from sbx import NAME as Algorithm', '    from stable_baselines3 import NAME as Algorithm'),
            "the peer's batches are smaller": ('batch_size=256, policy_kwargs', 'batch_size=128, policy_kwargs'),
            "the peer's noise is larger": ('np.full(3, 0.1)', 'np.full(3, 0.2)'),
            'the peer learns in each step': ('policy="CnnPolicy", batch_size=32, train_freq=4', 'policy="CnnPolicy", batch_size=32, train_freq=1'),
            'SBX plays Pong on a CPU': ('sbx and (cuda or "SBX" not in CASES[case].get("without", []))', 'sbx'),
            'captured without a GPU': ('["PlainRL captured", "PlainRL compiled, captured"] * cuda', '["PlainRL captured", "PlainRL compiled, captured"]'),
            'JAX without a GPU takes part': ('capture_output=True).returncode == 0', 'capture_output=True).returncode >= 0'),
            'ratio upside down': ('statistics.median(one["PlainRL"] / one[peer] for one in rounds)', 'statistics.median(one[peer] / one["PlainRL"] for one in rounds)'),
            'ratio of medians is printed': ('statistics.median(one["PlainRL"] / one[peer] for one in rounds)', 'statistics.median(one["PlainRL"] for one in rounds) / statistics.median(values)'),
            "a GPU's speeds replace the CPU's": ('f"{case}{\'-cuda\' * options.cuda}"', 'case'),
            'odd steps are measured': ('if steps % unit:', 'if steps < unit:'),
            'one thread only': ('sorted({1, num_cores()})', '[1]'),
            'all are saved': ('if options.save:', 'if options.rounds:'),
            'two rounds for one': ('for _ in range(options.rounds):', 'for _ in range(options.rounds + 1):'),
            'a case that is none is measured': ('if unknown := set(options.cases) - CASES.keys():', 'if unknown := set():'),
        },
    },
    "benchmark/peer": {
        "grid": {
            'episodes that are cut off go on': ('terminated or truncated', 'terminated'),
            'the peer is played with noise': ('deterministic=True', 'deterministic=False'),
            'all evaluations have one seed': ('self.play(seed=10_000 + episode)', 'self.play(seed=10_000)'),
            "the peer's seed is its first": ('seed=options.seed, **ARGUMENTS', 'seed=1, **ARGUMENTS'),
            "the peer's networks are small": ('"net_arch": [256, 256]', '"net_arch": [64, 64]'),
            'the peer evaluates more often': ('if self.num_timesteps % 10_000 == 0:', 'if self.num_timesteps % 5_000 == 0:'),
            "the slash of a peer's environment makes a folder": ('options.env_id.replace("/", "-")', 'options.env_id'),
        },
    },
    "tests/carry": {
        "carry": {
            "PPO's blocks stay where they are": ('SHARED | dict.fromkeys(PPO_SHARED, PPO)', 'SHARED'),
            'a new method is far from the others': ('"\\n\\n" if name.startswith("Run.") and before.startswith("    ") else "\\n\\n\\n"', '"\\n\\n\\n"'),
            'what is no script is one': ('if len(sys.argv) != 2 or', 'if len(sys.argv) < 2 or'),
            'no diffs are shown': ('            sys.stdout.writelines(difflib', '            list(difflib'),
        },
    },
}  # fmt: skip
TESTS = [
    "equations",
    "continuous",
    "dqn",
    "ppo",
    "heads",
    "probes",
    "notes",
    "loop",
    "command_line",
    "logs",
    "failures",
    "runs",
]


def first_failure(script: str, right: str, wrong: str, first: str) -> str | None:
    """The first test that fails once `right` in the script has become `wrong`."""
    text = (ROOT / f"{script}.py").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        Path(folder, f"{script}.py").write_text(text.replace(right, wrong) if right else text, "utf-8")
        parts = [first] if "/" in script else sorted(TESTS, key=lambda test: test != first)
        for part in parts:
            path = "tests/notes" if part == "notes" else f"tests/test_{part}.py"
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", path]
            command += ["-m", "not cluster"] * (part in ("benchmark", "grid"))  # with benchmark/requirements.txt
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if result.returncode:
                lines = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return lines[0].split(" - ")[0] if lines else result.stdout + result.stderr
    return None


def survives(mutant: tuple[str, str, str, str, str]) -> bool:
    script, name, right, wrong, first = mutant
    failure = first_failure(script, right, wrong, first)
    print(f"{'caught' if failure else 'SURVIVED':8} {script}: {name}: {failure}", flush=True)
    return failure is None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="scripts, or parts of names; none: all")
    parser.add_argument("--sample", type=int, help="draw this many of them")
    options = parser.parse_args()
    for script, groups in MUTANTS.items():
        text = (ROOT / f"{script}.py").read_text("utf-8")
        for right, _ in (mutant for mutants in groups.values() for mutant in mutants.values()):
            assert text.count(right) == 1, f"{script}.py must have {right!r} once"
    chosen = [
        (script, name, right, wrong, first)
        for script, groups in MUTANTS.items()
        for first, mutants in groups.items()
        for name, (right, wrong) in mutants.items()
        if not options.parts or any(part == script or part in name for part in options.parts)
    ]
    if options.sample is not None:
        chosen = random.sample(chosen, min(options.sample, len(chosen)))
    failure = first_failure("sac_continuous", "", "", "runs")
    if failure:  # then it would be taken for the discovery of every mutant
        sys.exit(f"a test fails without any mistake: {failure}")
    with ThreadPoolExecutor(2) as pool:
        survived = [mutant[:2] for mutant, alive in zip(chosen, pool.map(survives, chosen), strict=True) if alive]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants caught; survived: {survived}")
    return len(survived)


if __name__ == "__main__":
    sys.exit(main())
