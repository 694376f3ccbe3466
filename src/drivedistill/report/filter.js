"use strict";
// Hides the answers that are not asked for. Without it everything is shown.
const form = document.getElementById("filters");
if (form) {
  const questions = [...document.querySelectorAll(".question")];
  const frames = [...document.querySelectorAll(".frame")];
  const shown = document.getElementById("shown");
  const apply = () => {
    const want = new FormData(form);
    let count = 0;
    for (const question of questions) {
      const hidden = ["task", "regime", "outcome"].some((name) => {
        const value = want.get(name);
        return value && !question.dataset[name].split("|").includes(value);
      });
      question.hidden = hidden;
      count += hidden ? 0 : 1;
    }
    for (const frame of frames) {
      frame.hidden = !frame.querySelector(".question:not([hidden])");
    }
    shown.textContent = `${count} of ${questions.length} questions shown`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}
