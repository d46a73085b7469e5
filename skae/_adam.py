"""The optimizer."""

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

__all__ = ["Adam", "Averaged", "adam"]

# Averages of weights are those of the last steps: about one in so many, plus one. Chosen by benchmarks/first_rows.py.
AVERAGED_SHARE = 8


class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2) for groups of parameters.

    The step is torch's. Its class AdamW is not used, as the first object of it imports torch's compiler, which takes
    longer than a short fit.

    recorded: an epoch of these steps that was recorded to be launched as a whole; None before that was tried, and False
    if it cannot be.
    """

    recorded = None

    def __init__(self, groups: list[dict], betas: tuple[float, float], fused: bool) -> None:
        self.param_groups = [{"lr": 0.0, **group} for group in groups]
        self.betas, self.fused = betas, fused
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            states = [self._state(p) for p in parameters]
            steps = [state["step"] for state in states]
            arguments = (
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
            )
            options = {
                "amsgrad": False,
                "beta1": self.betas[0],
                "beta2": self.betas[1],
                "lr": group["lr"],
                "weight_decay": group["weight_decay"],
                "eps": 1e-8,
                "maximize": False,
            }
            if self.fused:  # the kernel alone: the function around it takes four times as long
                for step in {id(step): step for step in steps}.values():
                    step += 1
                torch._fused_adamw_(*arguments, **options)
            else:
                adamw(*arguments, **options)

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": self._step(parameter),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self.state[parameter]

    def _step(self, parameter: Tensor) -> Tensor:
        """Number of steps: one tensor for all parameters that begin together, as each costs a call a step."""
        device = parameter.device if self.fused else "cpu"
        begun = (state["step"] for state in self.state.values())
        beside = next((step for step in begun if self.fused and step.device == device and not step.any()), None)
        return torch.zeros((), dtype=torch.float32, device=device) if beside is None else beside

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def state_dict(self) -> dict:
        """Moments and number of steps of each parameter, by its place, as torch's optimizers give them."""
        return {"state": {i: self.state[p] for i, p in enumerate(self._parameters()) if p in self.state}}

    def load_state_dict(self, state_dict: dict) -> None:
        parameters = self._parameters()
        for i, state in state_dict["state"].items():
            for name, value in self._state(parameters[i]).items():
                value.copy_(state[name])
        if self.fused:  # one number of steps for all of a group that have done as many, as in _step
            for group in self.param_groups:
                steps: dict[float, Tensor] = {}
                for known in (self.state[p] for p in group["params"] if p in self.state):
                    known["step"] = steps.setdefault(float(known["step"]), known["step"])


def adam(module: nn.Module, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)) -> Adam:
    """Adam for a module: its weight matrices decay, but not its biases and what parts of it name in `without_decay`."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    exempt = {id(p) for part in module.modules() for p in getattr(part, "without_decay", ())}
    decaying = [p for p in parameters if p.ndim > 1 and id(p) not in exempt]
    others = {id(p) for p in parameters} - {id(p) for p in decaying}
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in others], "weight_decay": 0.0},
    ]
    return Adam(groups, betas, fused=parameters[0].device.type in ("cpu", "cuda"))


class Averaged:
    """An optimizer, and the average of its weights over about the last ninth of its steps.

    At a learning rate that does not fall, weights keep moving about the optimum, and their average is nearer to it
    (Shamir and Zhang 2013, "Stochastic Gradient Descent for Non-smooth Optimization", section 4: polynomial decay).
    """

    def __init__(self, optimizer: Adam | torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups
        self.weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.averages, self.n_steps = [weight.detach().clone() for weight in self.weights], 0

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.optimizer.step()
        self.n_steps += 1
        rate = (AVERAGED_SHARE + 1) / (AVERAGED_SHARE + self.n_steps)
        torch._foreach_lerp_(self.averages, self.weights, rate)

    @torch.no_grad()
    def take_averages(self) -> None:
        """Let the averages be the weights, at the end."""
        for weight, average in zip(self.weights, self.averages, strict=True):
            weight.copy_(average)

    def state_dict(self) -> dict:
        """The optimizer's, with the weights that it goes on from and its steps; the averages are the network's."""
        own, n_steps = self.optimizer.state_dict(), torch.tensor(self.n_steps)
        known = {i: dict(own["state"].get(i, {})) for i in range(len(self.weights))}
        for i, weight in enumerate(self.weights):
            known[i] |= {"weight": weight.detach().clone(), "n_averaged": n_steps}
        return {**own, "state": known}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict) -> None:
        known = {i: dict(values) for i, values in state_dict["state"].items()}
        for i, values in known.items():
            self.weights[i].copy_(values.pop("weight"))
            self.n_steps = int(values.pop("n_averaged"))
        own = {i: values for i, values in known.items() if values}
        if own:
            self.optimizer.load_state_dict({**state_dict, "state": own})
