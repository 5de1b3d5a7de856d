// The last script: everything is defined.
load(document).then(() => { for (const call of onStart) call(); }).catch((problem) => {
  if (byId("found")) byId("found").textContent = `The prompts cannot be loaded: ${problem.message}`;
});
