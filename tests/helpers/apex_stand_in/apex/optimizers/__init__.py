import torch


class FusedAdam(torch.optim.Optimizer):
    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-8,
        adam_w_mode=True,
        weight_decay=0.0,
        amsgrad=False,
        set_grad_none=True,
        capturable=False,
        master_weights=False,
    ):
        if amsgrad:
            raise RuntimeError("FusedAdam does not support the AMSGrad variant.")
        defaults = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})
        self.adam_w_mode = 1 if adam_w_mode else 0
        self.set_grad_none = set_grad_none

    @torch.no_grad()
    def step(self, closure=None, grads=None, output_params=None, scale=None, grad_norms=None, grad_scaler=None):
        if any(p is not None for p in (grads, output_params, scale, grad_norms)):
            raise RuntimeError("FusedAdam has been updated; call it with no argument but a closure")
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                gradient = p.grad if self.adam_w_mode else p.grad + group["weight_decay"] * p
                mean = state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first)
                square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                mean, square = mean / (1 - first ** group["step"]), square / (1 - second ** group["step"])
                update = mean / (square.sqrt() + group["eps"])
                p.sub_(group["lr"] * (update + (group["weight_decay"] * p if self.adam_w_mode else 0)))
