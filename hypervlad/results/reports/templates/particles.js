// Switches for outlines: all, and those of one class.
by("legend").hidden = false;
by("legend").onchange = ({ target }) => {
  document.querySelectorAll(`.field ${target.dataset.shows}`).forEach((shape) => {
    shape.toggleAttribute("hidden", !target.checked);
  });
};
